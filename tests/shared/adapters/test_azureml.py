"""Azure ML's adapters against the embedded workspace over Azurite."""

import sys
import time

import msgspec
import pytest
from rich.console import Console

from local.clouds.azure.storage import CONNECTION_VARIABLE
from local.processes.supervisor import Service, Supervisor, free_port, http_ok
from shared.adapters import azureml
from shared.adapters.azure import BlobObjects
from shared.errors import ModelError, NotFoundError, UnavailableError

pytestmark = pytest.mark.xdist_group("clouds")

HYPERPARAMETERS = {"job_id": "x", "service": "it's qa", "epochs": "5"}


@pytest.fixture
def job(a_job):
    """A function: name -> the job."""
    return lambda name: a_job(job_id=name, cloud="azure", hyperparameters=HYPERPARAMETERS, deadline_s=90.4)


@pytest.fixture(scope="module")
def settings(azurite, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("azureml"), free_port()
    env = {
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_AZUREML_TOKEN": "t0k",
        "OPPORTUNE_LOCAL_SERVE_URL": None,
        CONNECTION_VARIABLE: azurite.azure_storage_connection,
    }
    with Supervisor(folder / "logs", console=Console(stderr=True, force_terminal=False), grace_s=1.0) as supervisor:
        command = [sys.executable, "-m", "local.clouds.azure.ml", "--port", str(port)]
        supervisor.start(Service("azureml", command, http_ok(f"http://127.0.0.1:{port}/healthz"), env))
        yield msgspec.structs.replace(azurite, azureml_url=f"http://127.0.0.1:{port}", azureml_token="t0k")


@pytest.fixture
def objects(settings):
    store = BlobObjects(settings)
    store.put("jobs/x/data/train.jsonl", b"{}\n")
    return store


@pytest.fixture
def training(settings, objects):
    return azureml.AzureMLTraining(settings, objects)


def until_ended(training, name):
    deadline = time.monotonic() + 60
    while (told := training.status(name)).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return told


def test_the_container_gets_its_inputs_and_says_why_it_failed(training, objects, job):
    # The real container on wrong hyperparameters: ends in a second, needs no model.
    for _ in range(2):
        training.start(job("fails-1"), objects.uri("jobs/x/data/"), None)
    told = until_ended(training, "fails-1")
    assert told.state == "failed"
    assert "it's qa" in told.reason, "quoting survives the shell"
    assert told.started_s <= told.finished_s
    with pytest.raises(NotFoundError):
        training.artifact("fails-1")


def test_a_stopped_job_is_stopped(training, objects, job):
    training.start(job("stops-1"), objects.uri("jobs/x/data/"), None)
    training.stop("stops-1")
    assert until_ended(training, "stops-1").state in ("stopped", "failed")


def test_the_artifact_is_what_the_container_left(training, objects):
    objects.put("jobs/done-1/model/model.tar.gz", b"packed")
    assert training.artifact("done-1") == b"packed"


def test_a_job_nobody_started_is_unknown(training):
    assert training.status("never-1") is None


def test_a_wrong_token_is_told_apart_from_a_missing_job(settings, objects):
    wrong = azureml.AzureMLTraining(msgspec.structs.replace(settings, azureml_token="wrong"), objects)
    with pytest.raises(UnavailableError, match="HTTP 401"):
        wrong.status("never-1")


def test_a_workspace_that_does_not_answer_is_unavailable(settings, objects):
    gone = azureml.AzureMLTraining(msgspec.structs.replace(settings, azureml_url="http://127.0.0.1:9"), objects)
    with pytest.raises(UnavailableError, match="Azure ML jobs/x"):
        gone.status("x")


def test_a_status_this_program_does_not_know_is_an_error(training, objects, monkeypatch, job):
    training.start(job("odd-1"), objects.uri("jobs/x/data/"), None)
    until_ended(training, "odd-1")
    monkeypatch.delitem(azureml._STATES, "Failed")
    with pytest.raises(UnavailableError, match="unknown status 'Failed'"):
        training.status("odd-1")


def test_the_request_names_everything_the_job_needs(training, job):
    body = training.request(job("x-1"), "azureml://datastores/opportune/paths/jobs/x-1/data/", "azureml://m1/")
    properties = body["properties"]
    assert properties["command"].startswith("python -m training_containers train --data ${{inputs.data}} --model")
    assert "--parent ${{inputs.parent}}" in properties["command"]
    assert properties["limits"]["timeout"] == "PT90S"
    assert properties["outputs"]["model"]["uri"] == "azureml://datastores/opportune/paths/jobs/x-1/model/"
    assert properties["environmentId"].endswith("/workspaces/opportune/environments/opportune-training/versions/1")


def test_traffic_moves_to_a_version_once_its_deployment_is_ready(settings, objects, a_tar):
    host = azureml.AzureMLHost(settings)
    assert host.serving_version() is None
    azureml.Workspace(settings).call(
        "PUT", f"onlineEndpoints/{settings.azureml_endpoint}", {"location": "x", "properties": {"authMode": "AADToken"}}
    )
    for version in ("m1", "a-version-with-a-name-too-long-for-a-deployment"):
        objects.put(f"models/{version}/model.tar.gz", a_tar({"config.json": b""}))
        deadline = time.monotonic() + 20
        while host.serving_version() != version:
            host.deploy(version, objects.uri(f"models/{version}/model.tar.gz"))
            assert time.monotonic() < deadline
            time.sleep(0.05)
        host.deploy(version, objects.uri(f"models/{version}/model.tar.gz"))
    with pytest.raises(ModelError, match="m-none is Failed"):
        for _ in range(100):
            host.deploy("m-none", objects.uri("models/none/model.tar.gz"))
            time.sleep(0.05)
    assert host.serving_version() == "a-version-with-a-name-too-long-for-a-deployment", "the old one goes on serving"


def test_the_http_face_is_the_configured_one_else_the_endpoints(settings):
    configured = msgspec.structs.replace(settings, azure_endpoint_url="http://proxy:1")
    assert azureml.AzureMLHost(configured).endpoint_url() == "http://proxy:1"


def test_the_endpoints_own_address_is_marked_as_one_that_wants_a_token(settings, monkeypatch):
    host = azureml.AzureMLHost(settings)
    address = "https://opportune-qa.westeurope.inference.ml.azure.com/score"
    for properties in ({"scoringUri": address}, {}):
        monkeypatch.setattr(host._workspace, "call", lambda *_, told=properties: {"properties": told})
        if properties:
            assert host.endpoint_url() == f"azureml:{address}"
        else:
            with pytest.raises(UnavailableError, match="no scoring address"):
                host.endpoint_url()
