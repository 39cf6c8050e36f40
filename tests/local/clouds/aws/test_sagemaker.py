"""The embedded SageMaker trains, reports, stops and serves as the real one does."""

import io
import json
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError  # noqa: TID251 - the test is a client of its own

pytestmark = pytest.mark.xdist_group("local-clouds")


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
        "AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"},
        "HyperParameters": hyper or {},
        "InputDataConfig": [
            {
                "ChannelName": "training",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://train/data/2026"}},
            }
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://train/artifacts"},
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
    bucket, _, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    body = local_aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        report = tar.extractfile("./report.json")
        assert report is not None
        return json.load(report)


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
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://train/artifacts/ok/output/model.tar.gz"
    assert model(local_aws, job) == {
        "hyper": {"epochs": "2", "seconds": "2"},
        "data": {"training/a.jsonl": "one", "training/deep/b.jsonl": "two"},
        "checkpoints": [],
        "channels": ["training"],
        "host": "algo-1",
        "job": "ok",
        "extra": "yes",
    }


def test_a_failing_container_gives_its_own_reason(sagemaker: Any) -> None:
    sagemaker.create_training_job(**request("bad", {"fail": "no examples in the window"}))
    job = finished(sagemaker, "bad")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: no examples in the window, exit code: 3"


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
