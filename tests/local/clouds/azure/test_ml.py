"""The embedded Azure ML runs jobs and deployments as the real one answers for them."""

import json
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from azure.storage.blob import ContainerClient  # noqa: TID251 - the test is a client of its own

from local.clouds.azure.jobs import BadJobError, seconds
from local.clouds.azure.storage import make_storage
from local.clouds.faults import PATH
from local.processes.supervisor import Service, Supervisor, free_port, http_ok, tcp_ok

pytestmark = pytest.mark.xdist_group("local-clouds")

WORKSPACE = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"  # a resource id
)
# A container: copies its data to the model, waits when told to, leaves a checkpoint when it is stopped.
TRAIN = """
import os, pathlib, signal, sys, time
data, model, seconds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
def stopped(*_):
    time.sleep(0.3)
    (model / "checkpoint").write_text("7")
    sys.exit(0)
signal.signal(signal.SIGTERM, stopped)
print("up", flush=True)
time.sleep(seconds)
if seconds < 0.05:
    print("an early line")
    sys.exit("no examples in the window")
found = sorted(p.name for p in model.iterdir())
(model / "deep").mkdir(exist_ok=True)
(model / "deep/report").write_text("|".join([(data / "a.jsonl").read_text(), os.environ["AZUREML_RUN_ID"],
                                             os.environ["EXTRA"], *found]))
"""


class Ml(NamedTuple):
    """A running Azure ML, the storage under it, and the events it sent."""

    url: str
    scoring_url: str
    container: Any
    events: list[dict[str, Any]]
    script: Path

    def call(self, method: str, path: str, body: Any = None, token: str = "t0k", query: str = "api-version=1") -> Any:
        request = urllib.request.Request(
            f"{self.url}{WORKSPACE}/{path}?{query}",
            data=json.dumps(body).encode() if body is not None else None,
            method=method,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as exc:
            return exc.code, json.loads(exc.read())

    def job(self, name: str, seconds: float = 0.1, **changes: Any) -> dict[str, Any]:
        command = f"{shlex.quote(sys.executable)} {self.script} ${{{{inputs.data}}}} ${{{{outputs.model}}}} {seconds}"
        return {
            "properties": {
                "jobType": "Command",
                "command": command,
                "environmentId": f"{WORKSPACE}/environments/image/versions/1",
                "computeId": "gpu",
                "experimentName": "tests",
                "inputs": {"data": {"jobInputType": "uri_folder", "uri": "azureml://datastores/o/paths/data/2026"}},
                "outputs": {
                    "model": {"jobOutputType": "uri_folder", "uri": f"azureml://datastores/o/paths/jobs/{name}/model/"}
                },
                "environmentVariables": {"EXTRA": "yes"},
                "tags": {"who": "me"},
                **changes,
            }
        }


@pytest.fixture(scope="module")
def ml(
    azurite: Any,
    running: Supervisor,
    serve_command: str,
    http_server: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ml]:
    folder, port, scoring = tmp_path_factory.mktemp("ml"), free_port(), free_port()
    scoring_url = f"http://127.0.0.1:{scoring}"
    events: list[dict[str, Any]] = []
    refusals = iter([503])  # the first delivery fails, and has to be repeated

    def hook(asked: Any) -> tuple[int, bytes]:
        status = next(refusals, 200)
        if status == 200:
            events.extend(json.loads(asked.body))
        return status, b""

    (folder / "train.py").write_text(TRAIN)
    make_storage(azurite.connection, queues=[], containers=["ml-tests"], tables=[])
    container = ContainerClient.from_connection_string(azurite.connection, "ml-tests")
    container.upload_blob("data/2026/a.jsonl", b"one")
    container.upload_blob("data/20260/other.jsonl", b"two")
    env = {
        "OPPORTUNE_AZUREML_TOKEN": "t0k",
        "OPPORTUNE_AZURE_STORAGE_CONNECTION": azurite.connection,
        "OPPORTUNE_CONTAINER": "ml-tests",
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_LOCAL_SERVE_COMMAND": serve_command,
        "OPPORTUNE_LOCAL_HEALTH_SECONDS": "15",
        "OPPORTUNE_LOCAL_SCORING_URL": scoring_url,
        "OPPORTUNE_OF_THE_CALLER": "a setting of this process",
    }
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "local.clouds.azure.ml", "--port", str(port)]
    with http_server(hook) as heard:
        env["OPPORTUNE_LOCAL_EVENTGRID_URL"] = f"{heard}/hook"
        route = [sys.executable, "-m", "local.clouds.azure.scoring", "--port", str(scoring)]
        running.start(
            Service("ml", command, http_ok(f"{url}/healthz"), env), Service("scoring", route, tcp_ok(scoring), env)
        )
        yield Ml(url, scoring_url, container, events, folder / "train.py")
        running.stop_one("scoring")
        running.stop_one("ml")


Eventually = Callable[..., Any]


def refuse(url: str, faults: dict[str, Any]) -> None:
    request = urllib.request.Request(f"{url}{PATH}", json.dumps(faults).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=5).close()


def ended(ml: Ml, name: str) -> Any:
    properties = ml.call("GET", f"jobs/{name}")[1]["properties"]
    return properties if properties["status"] in ("Completed", "Failed", "Canceled") else None


def blob(ml: Ml, key: str) -> str:
    return bytes(ml.container.download_blob(key).readall()).decode()


def test_a_job_runs_its_command_on_blobs_and_leaves_its_output_there(ml: Ml, eventually: Eventually) -> None:
    status, created = ml.call("PUT", "jobs/one", ml.job("one"))
    assert status == 201
    assert created["properties"]["status"] in ("Queued", "Running")
    assert created["id"] == f"{WORKSPACE}/jobs/one"
    done = eventually(lambda: ended(ml, "one"))
    assert done["status"] == "Completed"
    assert done["properties"]["StartTimeUtc"] < done["properties"]["EndTimeUtc"]
    assert blob(ml, "jobs/one/model/deep/report") == "one|one|yes"


def test_the_end_of_a_job_reaches_event_grids_subscriber_also_after_a_refusal(ml: Ml, eventually: Eventually) -> None:
    ml.call("PUT", "jobs/told", ml.job("told"))
    eventually(lambda: [e for e in ml.events if e["data"]["runId"] == "told" and e["eventType"].endswith("Completed")])
    changed, completed = (e for e in ml.events if e["data"]["runId"] == "told")
    assert changed["eventType"] == "Microsoft.MachineLearningServices.RunStatusChanged"
    assert changed["data"]["runStatus"] == "Completed"
    assert completed["data"]["runTags"] == {"who": "me"}
    assert completed["topic"] == WORKSPACE


def test_a_second_put_of_the_same_job_starts_nothing_and_another_command_is_refused(
    ml: Ml, eventually: Eventually
) -> None:
    ml.call("PUT", "jobs/twice", ml.job("twice"))
    before = eventually(lambda: ended(ml, "twice"))
    assert ml.call("PUT", "jobs/twice", ml.job("twice"))[0] == 200
    assert ended(ml, "twice") == before
    status, answer = ml.call("PUT", "jobs/twice", ml.job("twice", seconds=5))
    assert (status, answer["error"]["code"]) == (400, "UserError")


def test_a_failing_command_gives_the_last_line_of_its_log(ml: Ml, eventually: Eventually) -> None:
    ml.call("PUT", "jobs/bad", ml.job("bad", seconds=0))
    done = eventually(lambda: ended(ml, "bad"))
    assert done["status"] == "Failed"
    assert done["properties"]["failureReason"].endswith("status code 1. no examples in the window")


def test_missing_data_fails_the_job(ml: Ml, eventually: Eventually) -> None:
    inputs = {"data": {"jobInputType": "uri_folder", "uri": "azureml://datastores/o/paths/data/1999"}}
    ml.call("PUT", "jobs/nodata", ml.job("nodata", inputs=inputs))
    done = eventually(lambda: ended(ml, "nodata"))
    assert done["status"] == "Failed"
    assert "no data at" in done["properties"]["failureReason"]


def test_a_cancelled_job_may_write_a_checkpoint_that_its_next_attempt_finds(ml: Ml, eventually: Eventually) -> None:
    ml.call("PUT", "jobs/halt", ml.job("halt", seconds=60))
    log = ml.script.parent / "jobs" / "azureml-halt.log"
    eventually(lambda: log.exists() and "up" in log.read_text())
    assert ml.call("POST", "jobs/halt/cancel")[0] == 202
    assert eventually(lambda: ended(ml, "halt"))["status"] == "Canceled"
    assert blob(ml, "jobs/halt/model/checkpoint") == "7"
    outputs = {"model": {"jobOutputType": "uri_folder", "uri": "azureml://datastores/o/paths/jobs/halt/model/"}}
    ml.call("PUT", "jobs/again", ml.job("again", outputs=outputs))
    eventually(lambda: ended(ml, "again"))
    assert blob(ml, "jobs/halt/model/deep/report") == "one|again|yes|checkpoint"


def test_a_job_over_its_limit_is_cancelled(ml: Ml, eventually: Eventually) -> None:
    ml.call("PUT", "jobs/slow", ml.job("slow", seconds=60, limits={"jobLimitsType": "Command", "timeout": "PT1S"}))
    done = eventually(lambda: ended(ml, "slow"))
    assert (done["status"], done["properties"]["failureReason"]) == ("Canceled", "ran longer than limits.timeout")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jobType": "Sweep"}, "jobType"),
        ({"command": ""}, "properties.command"),
        ({"computeId": None}, "computeId"),
        ({"computer": "gpu"}, "unknown field `computer`"),
        ({"environmentVariables": {"EPOCHS": 5}}, "Expected `str`"),
        ({"outputs": {"model": {"uri": "azureml://datastores/o/paths/x/"}}}, "jobOutputType"),
        ({"command": "run ${{inputs.nothing}}"}, "inputs.nothing"),
        ({"limits": {"jobLimitsType": "Command", "timeout": "soon"}}, "ISO 8601"),
    ],
)
def test_a_wrong_definition_is_refused_with_the_field(ml: Ml, change: dict[str, Any], words: str) -> None:
    status, answer = ml.call("PUT", "jobs/wrong", ml.job("wrong", **change))
    assert status == 400
    assert words in answer["error"]["message"]
    assert ml.call("GET", "jobs/wrong")[0] == 404


def test_requests_need_a_token_and_a_version(ml: Ml) -> None:
    assert ml.call("GET", "jobs/one", token="wrong")[0] == 401
    status, answer = ml.call("GET", "jobs/one", query="x=1")
    assert (status, answer["error"]["code"]) == (400, "MissingApiVersionParameter")
    assert ml.call("POST", "jobs/nobody/cancel")[0] == 404


@pytest.mark.parametrize("code", ["OutOfCapacity", "AllocationFailed"])
def test_a_job_for_which_there_is_no_machine_says_so(ml: Ml, eventually: Eventually, code: str) -> None:
    refuse(ml.url, {"TrainingJob": {"code": code, "times": 1}})
    ml.call("PUT", f"jobs/none-{code}", ml.job(f"none-{code}"))
    done = eventually(lambda: ended(ml, f"none-{code}"))
    assert done["status"] == "Failed" and done["properties"]["failureReason"].startswith(code)
    assert "StartTimeUtc" not in done["properties"]


def test_a_missing_permission_can_be_asked_for(ml: Ml) -> None:
    refuse(ml.url, {"PUT jobs": {"code": "AuthorizationFailed", "status": 403}})
    status, answer = ml.call("PUT", "jobs/forbidden", ml.job("forbidden"))
    assert (status, answer["error"]["code"]) == (403, "AuthorizationFailed")
    assert ml.call("GET", "jobs/forbidden")[0] == 404
    refuse(ml.url, {})


# --- endpoints

ENDPOINT = {"location": "here", "properties": {"authMode": "AADToken"}}
ROUTES = {
    name: {"path": path, "port": 5001}
    for name, path in (("livenessRoute", "/healthz"), ("readinessRoute", "/healthz"), ("scoringRoute", "/score"))
}


def deployment(told: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {
        "location": "here",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_F4s_v2",
            "environmentId": f"{WORKSPACE}/environments/image/versions/1",
            "environmentVariables": told,
            **changes,
        },
    }


def state(ml: Ml, path: str) -> str:
    status, found = ml.call("GET", path)
    return str(found["properties"]["provisioningState"]) if status == 200 else "gone"


def traffic(**shares: int) -> dict[str, Any]:
    return {"location": "here", "properties": {"authMode": "AADToken", "traffic": shares}}


def score(ml: Ml, body: Any = None, token: str = "t0k", path: str = "/qa-1/score", **headers: str) -> tuple[int, Any]:
    known = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    request = urllib.request.Request(ml.scoring_url + path, json.dumps(body or {}).encode(), known)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, {
                **json.loads(answer.read()),
                "deployment": answer.headers["azureml-model-deployment"],
            }
    except urllib.error.HTTPError as exc:
        return exc.code, dict(exc.headers)


@pytest.fixture(scope="module")
def blue(ml: Ml, eventually: Eventually) -> str:
    """An endpoint with one deployment that takes all traffic."""
    assert ml.call(
        "PUT", "environments/image/versions/1", {"properties": {"image": "r/i:1", "inferenceConfig": ROUTES}}
    )
    assert ml.call("PUT", "onlineEndpoints/qa-1", ENDPOINT)[1]["properties"]["provisioningState"] == "Creating"
    eventually(lambda: state(ml, "onlineEndpoints/qa-1") == "Succeeded")
    path = "onlineEndpoints/qa-1/deployments/blue"
    assert ml.call("PUT", path, deployment({"TOLD": "by the deployment"}))[0] == 201
    assert state(ml, path) == "Creating"
    assert score(ml)[0] == 404, "nothing takes traffic yet"
    eventually(lambda: state(ml, path) == "Succeeded")
    assert ml.call("PUT", "onlineEndpoints/qa-1", traffic(blue=100))[0] == 200
    eventually(lambda: state(ml, "onlineEndpoints/qa-1") == "Succeeded")
    return path


def test_a_container_knows_what_the_deployment_says_and_nothing_else(ml: Ml, blue: str) -> None:
    status, answer = score(ml)
    assert (status, answer["deployment"], answer["path"]) == (200, "blue", "/score")
    told = answer["env"]
    assert told["TOLD"] == "by the deployment" and "AZUREML_MODEL_DIR" not in told
    ours = {name for name in told if name.startswith(("OPPORTUNE_", "AWS_"))}
    assert ours == {"OPPORTUNE_SERVE_HOST", "OPPORTUNE_SERVE_PORT"}
    assert "authorization" not in answer["headers"]
    assert ml.call("GET", "onlineEndpoints/qa-1")[1]["properties"]["scoringUri"] == f"{ml.scoring_url}/qa-1/score"
    assert "up on" in ml.call("POST", f"{blue}/getLogs", {"tail": 5})[1]["content"]


def test_the_scoring_route_asks_for_a_token_and_leads_nowhere_else(ml: Ml, blue: str) -> None:
    assert score(ml, token="")[0] == score(ml, token="wrong")[0] == 401
    for path in ("/metrics", "/models", "/healthz", "/qa-1/metrics", "/qa-1/models/v2/activate", "/nobody/score"):
        assert score(ml, path=path)[0] == 404
    status, headers = score(ml, {"status": 409})
    assert (status, headers["ms-azureml-model-error-statuscode"]) == (424, "409")
    assert score(ml, {"sleep": 7})[0] == 408, "requestSettings.requestTimeout is 5 s where nobody says otherwise"
    assert score(ml, {"filler": "x" * (10 * 2**20)})[0] == 413


def test_more_requests_at_a_time_than_a_deployment_allows_are_refused(ml: Ml, blue: str) -> None:
    with ThreadPoolExecutor(6) as callers:
        statuses = list(callers.map(lambda _: score(ml, {"sleep": 1})[0], range(6)))
    assert 200 in statuses and 429 in statuses, "one at a time by default, and as many may wait"


def test_a_deployment_that_is_not_healthy_is_failed_and_takes_no_traffic(
    ml: Ml, blue: str, eventually: Eventually
) -> None:
    path = "onlineEndpoints/qa-1/deployments/green"
    ml.call("PUT", path, deployment({"FAIL": "ends"}))
    eventually(lambda: state(ml, path) == "Failed", 40)
    for name in ("green", "nobody"):
        assert ml.call("PUT", "onlineEndpoints/qa-1", traffic(**{name: 100}))[0] == 400
    assert ml.call("PUT", "onlineEndpoints/qa-1", traffic(blue=50))[0] == 400, "half of it would be lost"
    assert score(ml)[1]["deployment"] == "blue"
    assert ml.call("DELETE", path)[0] == 202
    eventually(lambda: state(ml, path) == "gone")


def test_a_deployment_with_traffic_is_not_deleted_and_a_put_resets_what_it_leaves_out(
    ml: Ml, blue: str, eventually: Eventually
) -> None:
    assert ml.call("DELETE", blue)[0] == 400
    assert ml.call("PATCH", "onlineEndpoints/qa-1", {"properties": {"traffic": {"blue": 0}}})[0] == 400
    assert ml.call("PATCH", "onlineEndpoints/qa-1", {"tags": {"a": "b"}})[1]["tags"] == {"a": "b"}
    assert ml.call("PUT", "onlineEndpoints/qa-1", ENDPOINT)[0] == 200
    assert ml.call("PUT", "onlineEndpoints/qa-1", ENDPOINT)[0] == 409, "it is being changed"
    eventually(lambda: state(ml, "onlineEndpoints/qa-1") == "Succeeded")
    found = ml.call("GET", "onlineEndpoints/qa-1")[1]
    assert found["properties"]["traffic"] == {} and "tags" not in found
    assert score(ml)[0] == 404
    assert score(ml, **{"azureml-model-deployment": "blue"})[0] == 200, "named, it answers without a share"
    ml.call("PUT", "onlineEndpoints/qa-1", traffic(blue=100))
    eventually(lambda: state(ml, "onlineEndpoints/qa-1") == "Succeeded")


def test_more_instances_are_more_processes_and_deleting_the_endpoint_ends_them(
    ml: Ml, blue: str, eventually: Eventually
) -> None:
    changed = deployment({"TOLD": "again"}, requestSettings={"maxConcurrentRequestsPerInstance": 8})
    changed["sku"]["capacity"] = 2
    assert ml.call("PUT", blue, changed)[1]["properties"]["provisioningState"] == "Updating"
    assert score(ml)[1]["env"]["TOLD"] == "by the deployment", "the old one answers meanwhile"
    eventually(lambda: state(ml, blue) == "Succeeded")
    pids = {score(ml)[1]["pid"] for _ in range(12)}
    assert len(pids) == 2
    assert ml.call("DELETE", "onlineEndpoints/qa-1")[0] == 202
    eventually(lambda: state(ml, "onlineEndpoints/qa-1") == "gone")
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert score(ml)[0] == 404


def test_the_model_of_a_deployment_is_mounted(ml: Ml, blue: str, eventually: Eventually) -> None:
    ml.container.upload_blob("models/v2/manifest.json", b"{}", overwrite=True)
    ml.call("PUT", "models/qa/versions/v2", {"properties": {"modelUri": "azureml://datastores/o/paths/models/v2/"}})
    ml.call("PUT", "onlineEndpoints/qa-2", ENDPOINT)
    eventually(lambda: state(ml, "onlineEndpoints/qa-2") == "Succeeded")
    path = "onlineEndpoints/qa-2/deployments/blue"
    ml.call("PUT", path, deployment({}, model=f"{WORKSPACE}/models/qa/versions/v2"))
    eventually(lambda: state(ml, path) == "Succeeded")
    _, answer = score(ml, path="/qa-2/score", **{"azureml-model-deployment": "blue"})
    assert (Path(answer["env"]["AZUREML_MODEL_DIR"]) / "manifest.json").read_text() == "{}"
    ml.call("DELETE", "onlineEndpoints/qa-2")


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("onlineEndpoints/x", ENDPOINT, "not a valid name"),
        ("onlineEndpoints/other", {"location": "here", "properties": {}}, "missing required field `authMode`"),
        ("onlineEndpoints/other", {"location": "here", "properties": {"authMode": "Token"}}, "Invalid enum"),
        ("onlineEndpoints/qa-3/deployments/blue", {"properties": {"endpointComputeType": "Managed"}}, "instanceType"),
        ("onlineEndpoints/qa-3/deployments/blue", deployment({}, environmentId="env:1"), "env:1 does not exist"),
        ("onlineEndpoints/qa-3/deployments/blue", deployment({}, instances=2), "unknown field `instances`"),
        ("onlineEndpoints/qa-3/deployments/blue", deployment({}, requestSettings={"requestTimeout": "PT4M"}), "180"),
        ("models/qa/versions/1", {"properties": {"uri": "azureml://x"}}, "unknown field `uri`"),
    ],
)
def test_bodies_that_azure_ml_does_not_take_are_refused_with_the_property(
    ml: Ml, blue: str, path: str, body: Any, words: str
) -> None:
    ml.call("PUT", "onlineEndpoints/qa-3", ENDPOINT)
    status, answer = ml.call("PUT", path, body)
    while status == 409:  # the endpoint is being made
        time.sleep(0.1)
        status, answer = ml.call("PUT", path, body)
    assert status == 400, answer
    assert words in answer["error"]["message"]


def test_durations() -> None:
    assert seconds("PT90S") == 90
    assert seconds("P1DT1H1M") == 90_060
    with pytest.raises(BadJobError):
        seconds("90")
