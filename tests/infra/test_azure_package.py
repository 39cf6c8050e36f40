"""build/azure in Azure's own Python worker under 3.13, against Azurite: indexing, then every trigger."""

import base64
import json
import shutil
import sys

import msgspec
import pytest
from rich.console import Console

from local.processes.supervisor import Service, Supervisor, free_port, http_ok
from local.runtimes import AzureWorker, FunctionError
from shared.adapters.azure.credential import azure_credential
from shared.adapters.azure.documents import TableDocuments
from shared.adapters.azure.objects import BlobObjects
from shared.adapters.azure.queue import StorageQueue
from shared.contracts import FeedbackPair, TrainingJob, decode, encode
from shared.state import State

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.slow]


@pytest.fixture(scope="module")
def account(own_azurite):
    """Settings of an account that nothing else uses."""
    return msgspec.structs.replace(own_azurite, cloud="azure", service="az")


@pytest.fixture(scope="module")
def worker(packages, account, prometheus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("azure")
    # A clean folder as publish makes it; nothing of the repository is beside it.
    app = shutil.copytree(packages / "azure", folder / "wwwroot")
    port = free_port()
    env = {
        "OPPORTUNE_SERVICE": "az",
        "OPPORTUNE_POLICY": "always",
        "OPPORTUNE_PROMETHEUS_URL": prometheus,
        "OPPORTUNE_SCHEDULER": "azure",
        "OPPORTUNE_MIN_NEW_PAIRS": "4",
        "OPPORTUNE_OPEN_RECORDS": "true",
        "OPPORTUNE_SCHEDULE": "0 * * * * *",
        "OPPORTUNE_AZURE_STORAGE_CONNECTION": account.azure_storage_connection,
        "OPPORTUNE_AZUREML_URL": f"http://127.0.0.1:{port}",
        "OPPORTUNE_AZUREML_TOKEN": "t0k",
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_LOCAL_TRAIN_COMMAND": f"{sys.executable} -c pass",
    }
    with Supervisor(folder / "logs", console=Console(stderr=True, force_terminal=False), grace_s=1.0) as supervisor:
        command = [sys.executable, "-m", "local.clouds.azure.ml", "--port", str(port)]
        supervisor.start(Service("azureml", command, http_ok(f"http://127.0.0.1:{port}/healthz"), env))
        with AzureWorker(app, env, folder / "worker.log") as running:
            yield running


def test_it_indexes_one_trigger_of_each_kind(worker):
    triggers = {name: bindings[0]["type"] for name, bindings in worker.functions.items()}
    assert triggers == {
        "schedule": "timerTrigger",
        "retrain": "queueTrigger",
        "training-events": "eventGridTrigger",
        "http": "httpTrigger",
    }
    assert worker.functions["retrain"][0]["queueName"] == "%OPPORTUNE_QUEUE%"


@pytest.mark.parametrize("functions", ["http", "schedule,retrain,training-events"])
def test_an_app_has_the_functions_that_its_settings_name_and_no_others(packages, tmp_path, functions):
    app = shutil.copytree(packages / "azure", tmp_path / "wwwroot")
    with AzureWorker(app, {"OPPORTUNE_FUNCTIONS": functions}, tmp_path / "worker.log") as running:
        assert set(running.functions) == set(functions.split(","))


def message(body):
    stamp = ["json", '"2026-01-01T00:00:00+00:00"']
    metadata = {"Id": ["string", "m1"], "PopReceipt": ["string", "p"], "DequeueCount": ["json", "1"]}
    times = dict.fromkeys(("InsertionTime", "ExpirationTime", "NextVisibleTime"), stamp)
    return {"message": ["string", body]}, {**metadata, **times}


def test_a_tick_enqueues_and_the_queue_starts_exactly_one_job(worker, account):
    pairs = [FeedbackPair(question=f"q{n}", answers=("a",), received_s=1.7e9 + n) for n in range(40)]
    BlobObjects(account, azure_credential()).put(
        "feedback/azure/20990101T000000-1.jsonl", b"".join(encode(p) + b"\n" for p in pairs)
    )
    timer = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": False}
    worker.invoke("schedule", {"timer": ["json", json.dumps(timer)]})
    (decision,) = State(TableDocuments(account, azure_credential())).decisions()
    assert decision.action.name == "RETRAIN_AZURE"
    assert StorageQueue(account, azure_credential()).depth() == 1
    body = queued(account, decision.job_id)
    for _ in range(2):
        worker.invoke("retrain", *message(body))
    job = State(TableDocuments(account, azure_credential())).job(decision.job_id)
    assert job is not None
    assert job.record.status.value in ("training", "stopped"), job.record


def queued(account, job_id):
    """The message in the queue that names the job."""
    from azure.storage.queue import QueueClient  # noqa: TID251 - plays the host that delivers

    client = QueueClient.from_connection_string(account.azure_storage_connection, account.queue)
    bodies = [base64.b64decode(m.content).decode() for m in client.receive_messages(visibility_timeout=1)]
    (body,) = [body for body in bodies if job_id in body]
    assert decode(TrainingJob, body).cloud == "azure"
    return body


def test_a_malformed_message_is_kept_with_its_reason(worker, account):
    worker.invoke("retrain", *message("{oops"))
    letters = [letter for letter in StorageQueue(account, azure_credential()).dead_letters(1) if letter.body == "{oops"]
    assert letters
    assert "not JSON" in letters[0].reason


def test_completion_events_name_a_job_or_fail_loudly(worker):
    def event(data):
        told = {"id": "1", "topic": "t", "subject": "s", "eventType": "RunCompleted", "data": data, "dataVersion": "1"}
        return {"event": ["json", json.dumps({**told, "eventTime": "2026-01-01T00:00:00Z"})]}

    worker.invoke("training-events", event({"runId": "somebody-elses"}))
    with pytest.raises(FunctionError, match=r"data\.runId is missing"):
        worker.invoke("training-events", event({}))


def test_http_answers_as_json(worker):
    def get(path):
        asked = {"method": "GET", "url": f"https://opportune.example{path}", "params": {"path": path.strip("/")}}
        answer = worker.invoke("http", {"req": ["http", asked]})
        return int(answer["status_code"]), json.loads(base64.b64decode(answer["body"]))

    assert get("/healthz") == (200, {"status": "ok", "service": "az", "cloud": "azure"})
    status, listed = get("/decisions")
    assert status == 200
    assert listed["decisions"]
    assert get("/nowhere")[0] == 404
