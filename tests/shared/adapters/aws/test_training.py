"""SageMaker training jobs against the embedded AWS; requests against the real service's model."""

import json
import time

import botocore.session
import pytest
from botocore.validate import ParamValidator

from shared.adapters.aws import training as adapter
from shared.adapters.aws.objects import S3Objects
from shared.adapters.aws.session import AwsSession
from shared.errors import ModelError, NotFoundError, UnavailableError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("sagemaker")


@pytest.fixture
def job(a_job):
    """A function: name, and what the container shall do -> the job."""

    def make(name, seconds="0", fail=""):
        return a_job(job_id=name, hyperparameters={"seconds": seconds, "fail": fail}, deadline_s=60.0)

    return make


@pytest.fixture
def training(sagemaker_session):
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/opportune-training:1"
    return adapter.SageMakerTraining(sagemaker_session, Settings(sagemaker_image=image))


def until(state, training, name):
    deadline = time.monotonic() + 30
    while (told := training.status(name)).state != state:
        assert told.state == "running", told
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return told


def test_a_job_runs_on_its_channels_and_leaves_its_files(training, job, sagemaker_session):
    training.start(job("ok-1"), "s3://opportune/jobs/data/", "s3://opportune/models/m1/")
    told = until("succeeded", training, "ok-1")
    assert told.started_s <= told.finished_s <= time.time() + 1
    prefix = training.model_prefix("ok-1")
    assert prefix == "jobs/ok-1/output/model/"
    found = json.loads(S3Objects(sagemaker_session, "opportune").get(f"{prefix}found.json"))
    assert found == ["parent/config.json", "training/train.jsonl"]


def test_a_second_start_of_the_same_name_is_harmless(training, job):
    for _ in range(2):
        training.start(job("twice-1"), "s3://opportune/jobs/data/", None)
    until("succeeded", training, "twice-1")


def test_a_failure_carries_the_containers_reason(training, job):
    training.start(job("bad-1", fail="loss is NaN"), "s3://opportune/jobs/data/", None)
    assert "loss is NaN" in until("failed", training, "bad-1").reason


def test_a_stopped_job_is_stopped_not_finished(training, job):
    training.start(job("long-1", seconds="60"), "s3://opportune/jobs/data/", None)
    training.stop("long-1")
    until("stopped", training, "long-1")


def test_a_job_nobody_started_is_unknown_and_has_no_artifact(training):
    assert training.status("never-1") is None
    with pytest.raises(NotFoundError, match="no model artifact"):
        training.model_prefix("never-1")


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://opportune/jobs/x-1/output/model", "jobs/x-1/output/model/"),
        ("s3://opportune/jobs/x-1/output/model/", "jobs/x-1/output/model/"),
        ("s3://opportune/artifacts/x-1/output/model.tar.gz", None),
        ("s3://opportune-2/jobs/x-1/output/model/", None),
    ],
)
def test_a_model_is_a_folder_in_the_bucket(monkeypatch, uri, prefix):
    training = adapter.SageMakerTraining(AwsSession(), Settings())
    monkeypatch.setattr(training, "_describe", lambda _: {"ModelArtifacts": {"S3ModelArtifacts": uri}})
    if prefix is not None:
        assert training.model_prefix("x-1") == prefix
        return
    with pytest.raises(ModelError, match="no folder in the bucket"):
        training.model_prefix("x-1")


def test_a_status_this_program_does_not_know_is_an_error_never_finished(training, monkeypatch, job):
    training.start(job("odd-1"), "s3://opportune/jobs/data/", None)
    until("succeeded", training, "odd-1")
    monkeypatch.delitem(adapter._STATES, "Completed")
    with pytest.raises(UnavailableError, match="unknown status 'Completed'"):
        training.status("odd-1")


def test_every_status_of_sagemakers_own_model_is_known():
    model = botocore.session.get_session().get_service_model("sagemaker")
    states = set(model.shape_for("TrainingJobStatus").enum)
    assert states - set(adapter._STATES) <= {"Deleting"}


@pytest.mark.parametrize("spot", [True, False])
def test_requests_are_valid_for_the_real_service(spot, job):
    settings = Settings(sagemaker_spot=spot)
    request = adapter.SageMakerTraining(AwsSession(), settings).request(job("x-1"), "s3://b/data/", "s3://b/models/m1/")
    model = botocore.session.get_session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model("CreateTrainingJob").input_shape)
    assert not report.has_errors(), report.generate_report()
    assert request["OutputDataConfig"] == {"S3OutputPath": "s3://opportune/jobs", "CompressionType": "NONE"}
    assert request["EnableManagedSpotTraining"] is spot
    waits = request["StoppingCondition"].get("MaxWaitTimeInSeconds")
    assert waits == (120 if spot else None), "spot may wait, and only spot may say so"
