"""The embedded Azure ML runs jobs and deployments as the real one answers for them."""

import json
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from azure.storage.blob import ContainerClient  # noqa: TID251 - the test is a client of its own

from local.clouds.azure.jobs import BadJobError, seconds
from local.clouds.azure.storage import make_storage
from local.processes.supervisor import Service, Supervisor, free_port, http_ok

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
                "environmentId": "env:1",
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
    serving: Any,
    http_server: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ml]:
    folder, port = tmp_path_factory.mktemp("ml"), free_port()
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
        "OPPORTUNE_LOCAL_SERVE_URL": serving.url,
        "OPPORTUNE_ADMIN_TOKEN": "secret",
    }
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "local.clouds.azure.ml", "--port", str(port)]
    with http_server(hook) as heard:
        env["OPPORTUNE_LOCAL_EVENTGRID_URL"] = f"{heard}/hook"
        running.start(Service("ml", command, http_ok(f"{url}/healthz"), env))
        yield Ml(url, container, events, folder / "train.py")
        running.stop_one("ml")


Eventually = Callable[..., Any]


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
        ({"command": ""}, "properties.command is required"),
        ({"command": "run ${{inputs.nothing}}"}, "inputs.nothing"),
        ({"limits": {"timeout": "soon"}}, "ISO 8601"),
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


def test_a_deployment_loads_its_model_and_traffic_activates_it(ml: Ml, serving: Any, eventually: Eventually) -> None:
    endpoint = {"location": "here", "properties": {"authMode": "AADToken"}}
    assert ml.call("PUT", "onlineEndpoints/qa", endpoint)[0] == 201
    ml.call("PUT", "onlineEndpoints/qa/deployments/base", {"properties": {"endpointComputeType": "Managed"}})
    deployment = "onlineEndpoints/qa/deployments"

    def state(name: str) -> str:
        return str(ml.call("GET", f"{deployment}/{name}")[1]["properties"]["provisioningState"])

    eventually(lambda: state("base") == "Succeeded")
    assert ml.call("PUT", "onlineEndpoints/qa", {"properties": {"traffic": {"base": 100}}})[0] == 200

    ml.container.upload_blob("models/v2/manifest.json", b"{}", overwrite=True)
    model = {"properties": {"modelUri": "azureml://datastores/o/paths/models/v2/"}}
    for version in ("v2", "broken3"):
        ml.call("PUT", f"models/qa/versions/{version}", model)
        body = {"properties": {"model": f"{WORKSPACE}/models/qa/versions/{version}"}, "tags": {"a": version}}
        assert ml.call("PUT", f"{deployment}/{version}", body)[1]["properties"]["provisioningState"] == "Creating"
    eventually(lambda: state("v2") == "Succeeded" and state("broken3") == "Failed")

    serving.calls.clear()
    for unready in ("broken3", "nobody"):
        assert ml.call("PUT", "onlineEndpoints/qa", {"properties": {"traffic": {unready: 100}}})[0] == 409
    assert ml.call("GET", "onlineEndpoints/qa")[1]["properties"]["traffic"] == {"base": 100}
    assert ml.call("PATCH", "onlineEndpoints/qa", {"properties": {"traffic": {"v2": 100}}})[0] == 200
    assert serving.calls == [("POST", "/models/v2/activate", {})]
    found = ml.call("GET", "onlineEndpoints/qa")[1]["properties"]
    assert found["traffic"] == {"v2": 100}
    assert found["scoringUri"] == f"{serving.url}/score"
    assert ml.call("GET", f"{deployment}/v2")[1]["tags"] == {"a": "v2"}


def test_durations() -> None:
    assert seconds("PT90S") == 90
    assert seconds("P1DT1H1M") == 90_060
    with pytest.raises(BadJobError):
        seconds("90")
