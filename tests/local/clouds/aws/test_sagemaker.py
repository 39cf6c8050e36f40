"""The embedded SageMaker trains, reports, stops and serves as the real one does."""

import io
import json
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError  # noqa: TID251 - the test is a client of its own

pytestmark = pytest.mark.xdist_group("local-clouds")

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/opportune:1"


@pytest.fixture(scope="module")
def sagemaker(local_aws: Any) -> Any:
    s3 = local_aws.client("s3")
    s3.create_bucket(Bucket="train")
    s3.put_object(Bucket="train", Key="data/2026/a.jsonl", Body=b"one")
    s3.put_object(Bucket="train", Key="data/2026/deep/b.jsonl", Body=b"two")
    return local_aws.client("sagemaker")


def request(name: str, hyper: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": "arn:aws:iam::123456789012:role/train",
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": hyper or {},
        "InputDataConfig": [
            {
                "ChannelName": "training",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://train/data/2026"}},
            }
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://train/artifacts", "CompressionType": "NONE"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def finished(sagemaker: Any, name: str, timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        job = sagemaker.describe_training_job(TrainingJobName=name)
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


def model(local_aws: Any, job: Any) -> Any:
    """The report that the container left, a file of its own."""
    bucket, _, prefix = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    return json.loads(local_aws.client("s3").get_object(Bucket=bucket, Key=f"{prefix}report.json")["Body"].read())


def test_a_job_runs_the_container_on_its_channels_and_leaves_the_model_in_s3(sagemaker: Any, local_aws: Any) -> None:
    sagemaker.create_training_job(**request("ok", {"epochs": "2", "seconds": "2"}, Environment={"EXTRA": "yes"}))
    started = sagemaker.describe_training_job(TrainingJobName="ok")
    assert started["TrainingJobStatus"] == "InProgress"
    assert "ModelArtifacts" not in started or not started["ModelArtifacts"].get("S3ModelArtifacts")
    job = finished(sagemaker, "ok")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    assert job["TrainingStartTime"] < job["TrainingEndTime"]
    assert [s["Status"] for s in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://train/artifacts/ok/output/model/"
    assert model(local_aws, job) == {
        "hyper": {"epochs": "2", "seconds": "2"},
        "data": {"training/a.jsonl": "one", "training/deep/b.jsonl": "two"},
        "checkpoints": [],
        "channels": ["training"],
        "host": "algo-1",
        "job": "ok",
        "extra": "yes",
        "settings": ["OPPORTUNE_ML_ROOT"],
    }


def test_without_compression_type_the_model_is_one_archive(sagemaker: Any, local_aws: Any) -> None:
    output = {"S3OutputPath": "s3://train/artifacts"}
    sagemaker.create_training_job(**request("packed", OutputDataConfig=output))
    uri = finished(sagemaker, "packed")["ModelArtifacts"]["S3ModelArtifacts"]
    assert uri == "s3://train/artifacts/packed/output/model.tar.gz"
    body = local_aws.client("s3").get_object(Bucket="train", Key=uri.removeprefix("s3://train/"))["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert "./report.json" in tar.getnames()


def test_a_failing_container_gives_its_own_reason(sagemaker: Any) -> None:
    sagemaker.create_training_job(**request("bad", {"fail": "no examples in the window"}))
    job = finished(sagemaker, "bad")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: no examples in the window, exit code: 3"


def test_a_channel_without_an_object_fails_the_job(sagemaker: Any) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://train/nothing"}}
    sagemaker.create_training_job(
        **request("nodata", InputDataConfig=[{"ChannelName": "training", "DataSource": source}])
    )
    job = finished(sagemaker, "nodata")
    assert job["TrainingJobStatus"] == "Failed" and "No S3 objects found" in job["FailureReason"]


@pytest.mark.parametrize(
    ("code", "status", "secondary"),
    [("CapacityError", "Failed", "Failed"), ("MaxWaitTimeExceeded", "Stopped", "MaxWaitTimeExceeded")],
)
def test_a_job_for_which_there_is_no_machine_never_ran(
    sagemaker: Any, local_aws: Any, code: str, status: str, secondary: str
) -> None:
    local_aws.refuse({"TrainingJob": {"code": code, "times": 1}})
    sagemaker.create_training_job(**request(f"no-{code}"))
    job = finished(sagemaker, f"no-{code}")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == (status, secondary)
    assert "TrainingStartTime" not in job and "BillableTimeInSeconds" not in job
    assert code != "CapacityError" or job["FailureReason"].startswith("CapacityError")


def test_a_spot_job_that_is_interrupted_goes_on_from_what_was_synced(sagemaker: Any, local_aws: Any) -> None:
    local_aws.refuse({"TrainingJob": {"code": "Interrupted", "times": 1}})
    spot = {
        "CheckpointConfig": {"S3Uri": "s3://train/checkpoints/spot"},
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
    }
    sagemaker.create_training_job(**request("spot", {"seconds": "5"}, **spot))
    job = finished(sagemaker, "spot", 40)
    assert "Interrupted" in [one["Status"] for one in job["SecondaryStatusTransitions"]]
    assert model(local_aws, job)["checkpoints"] == ["step"]


def test_a_second_job_of_the_same_name_is_refused(sagemaker: Any) -> None:
    sagemaker.create_training_job(**request("twice"))
    with pytest.raises(ClientError, match="ResourceInUse"):
        sagemaker.create_training_job(**request("twice"))
    assert finished(sagemaker, "twice")["TrainingJobStatus"] == "Completed"


def test_stopping_lets_the_container_write_a_checkpoint_that_the_next_job_finds(sagemaker: Any, local_aws: Any) -> None:
    checkpoints = {"CheckpointConfig": {"S3Uri": "s3://train/checkpoints/one"}}
    sagemaker.create_training_job(**request("halt", {"seconds": "60"}, **checkpoints))
    deadline = time.monotonic() + 15
    while sagemaker.describe_training_job(TrainingJobName="halt")["SecondaryStatus"] != "Training":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # the container installs its signal handler
    sagemaker.stop_training_job(TrainingJobName="halt")
    assert finished(sagemaker, "halt")["TrainingJobStatus"] == "Stopped"
    sagemaker.create_training_job(**request("resume", {}, **checkpoints))
    assert model(local_aws, finished(sagemaker, "resume"))["checkpoints"] == ["step"]
    with pytest.raises(ClientError, match="in status Stopped"):
        sagemaker.stop_training_job(TrainingJobName="halt")


def test_a_job_over_its_time_limit_is_stopped(sagemaker: Any) -> None:
    sagemaker.create_training_job(**request("slow", {"seconds": "60"}, StoppingCondition={"MaxRuntimeInSeconds": 1}))
    job = finished(sagemaker, "slow")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_the_end_of_a_job_reaches_an_eventbridge_rule(sagemaker: Any, local_aws: Any) -> None:
    sqs, events = local_aws.client("sqs"), local_aws.client("events")
    url = sqs.create_queue(QueueName="ended")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Training Job State Change"],
        "detail": {"TrainingJobStatus": ["Completed", "Failed", "Stopped"]},
    }
    events.put_rule(Name="ended", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="ended", Targets=[{"Id": "queue", "Arn": arn}])
    sagemaker.create_training_job(**request("told"))
    messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=15)["Messages"]
    event = json.loads(messages[0]["Body"])
    assert event["detail"]["TrainingJobName"] == "told"
    assert event["detail"]["TrainingJobStatus"] == "Completed"
    assert event["detail"]["TrainingEndTime"] > 1.6e12
    events.remove_targets(Rule="ended", Ids=["queue"])


def test_an_unknown_job_cannot_be_described_or_stopped(sagemaker: Any) -> None:
    for call in (sagemaker.describe_training_job, sagemaker.stop_training_job):
        with pytest.raises(ClientError, match="Could not find"):
            call(TrainingJobName="nobody")
