"""Azure ML's command jobs against the embedded workspace over Azurite."""

import time

import pytest

from shared.adapters.azure import training as azure_training
from shared.adapters.azure.training import AzureMLTraining
from shared.errors import UnavailableError

pytestmark = pytest.mark.xdist_group("clouds")

HYPERPARAMETERS = {"job_id": "x", "service": "it's qa", "epochs": "5"}


@pytest.fixture
def job(a_job):
    """A function: name -> the job."""
    return lambda name: a_job(job_id=name, cloud="azure", hyperparameters=HYPERPARAMETERS, deadline_s=90.4)


@pytest.fixture
def training(workspace_settings, credential, objects):
    return AzureMLTraining(workspace_settings, credential, objects)


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
    assert not list(objects.entries(f"{training.model_prefix('fails-1')}manifest.json"))


def test_a_stopped_job_is_stopped(training, objects, job):
    training.start(job("stops-1"), objects.uri("jobs/x/data/"), None)
    training.stop("stops-1")
    assert until_ended(training, "stops-1").state in ("stopped", "failed")


def test_the_model_is_what_the_container_left_where_its_output_is(training, job):
    body = training.request(job("done-1"), "azureml://data/", None)
    assert body["properties"]["outputs"]["model"]["uri"].endswith(f"/paths/{training.model_prefix('done-1')}")


def test_a_job_nobody_started_is_unknown(training):
    assert training.status("never-1") is None


def test_a_status_this_program_does_not_know_is_an_error(training, objects, monkeypatch, job):
    training.start(job("odd-1"), objects.uri("jobs/x/data/"), None)
    until_ended(training, "odd-1")
    monkeypatch.delitem(azure_training._STATES, "Failed")
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
