"""SageMaker's adapters against the embedded AWS, whose jobs really run a command; requests against the real model."""

import io
import sys
import tarfile
import textwrap
import time

import boto3
import botocore.session
import pytest
from botocore.validate import ParamValidator
from rich.console import Console

from local.processes.supervisor import Service, Supervisor, free_port, tcp_ok
from shared.adapters import aws, sagemaker
from shared.errors import ModelError, NotFoundError, UnavailableError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("sagemaker")

SETTINGS = Settings(sagemaker_endpoint="opportune-qa")
CONTAINER = textwrap.dedent(
    """
    import json, os, pathlib, sys, time
    root = pathlib.Path(os.environ["OPPORTUNE_ML_ROOT"])
    hyper = json.loads((root / "input/config/hyperparameters.json").read_text())
    time.sleep(float(hyper["seconds"]))
    if hyper["fail"]:
        (root / "output/failure").write_text(hyper["fail"])
        sys.exit(1)
    found = sorted(p.relative_to(root / "input/data").as_posix() for p in (root / "input/data").rglob("*.*"))
    (root / "model/found.json").write_text(json.dumps(found))
    """
)


@pytest.fixture
def job(a_job):
    """A function: name, and what the container shall do -> the job."""

    def make(name, seconds="0", fail=""):
        return a_job(job_id=name, hyperparameters={"seconds": seconds, "fail": fail}, deadline_s=60.0)

    return make


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    folder, port, patch = tmp_path_factory.mktemp("sagemaker"), free_port(), pytest.MonkeyPatch()
    script = folder / "container.py"
    script.write_text(CONTAINER)
    env = {
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_LOCAL_TRAIN_COMMAND": f"{sys.executable} {script}",
        "OPPORTUNE_LOCAL_SERVE_URL": None,
    }
    with Supervisor(folder / "logs", console=Console(stderr=True, force_terminal=False), grace_s=1.0) as supervisor:
        command = [sys.executable, "-m", "local.clouds.aws.cloud", "--port", str(port)]
        supervisor.start(Service("aws", command, tcp_ok(port), env))
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "local")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        aws.client.cache_clear()
        boto3.client("s3").create_bucket(Bucket="opportune")
        yield
        aws.client.cache_clear()
        patch.undo()


@pytest.fixture
def training(cloud):
    aws.S3Objects("opportune").put("jobs/data/train.jsonl", b"{}\n")
    aws.S3Objects("opportune").put("models/m1/model.tar.gz", b"x")
    return sagemaker.SageMakerTraining(SETTINGS)


def until(state, training, name):
    deadline = time.monotonic() + 30
    while (told := training.status(name)).state != state:
        assert told.state == "running", told
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return told


def test_a_job_runs_on_its_channels_and_leaves_an_artifact(training, job):
    training.start(job("ok-1"), "s3://opportune/jobs/data/", "s3://opportune/models/m1/")
    told = until("succeeded", training, "ok-1")
    assert told.started_s <= told.finished_s <= time.time() + 1
    with tarfile.open(fileobj=io.BytesIO(training.artifact("ok-1")), mode="r:gz") as archive:
        found = archive.extractfile(next(m for m in archive if m.name.endswith("found.json"))).read().decode()
    assert found == '["parent/model.tar.gz", "training/train.jsonl"]'


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
        training.artifact("never-1")


def test_a_status_this_program_does_not_know_is_an_error_never_finished(training, monkeypatch, job):
    training.start(job("odd-1"), "s3://opportune/jobs/data/", None)
    until("succeeded", training, "odd-1")
    monkeypatch.delitem(sagemaker._STATES, "Completed")
    with pytest.raises(UnavailableError, match="unknown status 'Completed'"):
        training.status("odd-1")


def test_every_status_of_sagemakers_own_model_is_known():
    model = botocore.session.get_session().get_service_model("sagemaker")
    states = set(model.shape_for("TrainingJobStatus").enum)
    assert states - set(sagemaker._STATES) <= {"Deleting"}


@pytest.mark.parametrize("spot", [True, False])
def test_requests_are_valid_for_the_real_service(spot, job):
    settings = Settings(sagemaker_spot=spot)
    request = sagemaker.SageMakerTraining(settings).request(job("x-1"), "s3://b/data/", "s3://b/models/m1/")
    model = botocore.session.get_session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model("CreateTrainingJob").input_shape)
    assert not report.has_errors(), report.generate_report()
    assert request["EnableManagedSpotTraining"] is spot
    waits = request["StoppingCondition"].get("MaxWaitTimeInSeconds")
    assert waits == (120 if spot else None), "spot may wait, and only spot may say so"


def test_an_endpoint_is_created_then_swapped_and_repeats_are_harmless(training):
    host = sagemaker.SageMakerHost(SETTINGS)
    assert host.serving_version() is None
    for version in ("v1", "v1", "v2"):
        deadline = time.monotonic() + 20
        while host.serving_version() != version:
            host.deploy(version, "s3://opportune/models/m1/model.tar.gz")
            assert time.monotonic() < deadline
            time.sleep(0.05)
    host.deploy("v2", "s3://opportune/models/m1/model.tar.gz")
    assert host.serving_version() == "v2"


def test_a_long_version_still_gets_a_valid_and_distinct_name():
    host = sagemaker.SageMakerHost(SETTINGS)
    names = {host._name("v" * 60 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_an_endpoint_that_failed_is_an_error_with_its_reason(monkeypatch):
    host = sagemaker.SageMakerHost(SETTINGS)
    monkeypatch.setattr(host, "_describe", lambda: {"EndpointStatus": "Failed", "FailureReason": "no capacity"})
    with pytest.raises(ModelError, match="no capacity"):
        host.serving_version()


def test_the_http_face_is_the_configured_one_else_sagemakers(training):
    assert sagemaker.SageMakerHost(Settings(aws_endpoint_url="http://proxy:1")).endpoint_url() == "http://proxy:1"
    assert sagemaker.SageMakerHost(SETTINGS).endpoint_url() == "sagemaker:opportune-qa"
