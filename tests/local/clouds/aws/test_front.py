"""What stands before moto refuses what SageMaker's own model of a request does not allow."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest

from local.clouds.aws.front import violations
from shared.adapters.aws.session import AwsSession
from shared.adapters.aws.training import SageMakerTraining
from shared.settings import Settings

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/opportune:1"
SETTINGS = Settings(sagemaker_image=IMAGE, sagemaker_role_arn="arn:aws:iam::123456789012:role/train")


@pytest.fixture
def ours(a_job: Any) -> dict[str, Any]:
    """The request that we send."""
    service = SageMakerTraining(AwsSession(), SETTINGS)
    return service.request(a_job(hyperparameters={"epochs": "5"}), "s3://opportune/feedback/", None)


def said(operation: str, request: dict[str, Any]) -> str:
    return violations(operation, json.dumps(request).encode())


def test_what_we_send_is_what_sagemaker_takes(ours: dict[str, Any]) -> None:
    assert said("CreateTrainingJob", ours) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"TrainingJobName": "q" * 64}, "trainingJobName.*less than or equal to 63"),
        ({"TrainingJobName": "-qa"}, "regular expression"),
        ({"HyperParameters": {"a": "x" * 2501}}, "hyperParameters.a.member.*2500"),
        ({"HyperParameters": {str(n): "" for n in range(101)}}, "size less than or equal to 100"),
        ({"HyperParameters": {"epochs": 5}}, "Invalid type for parameter HyperParameters.epochs"),
        ({"Command": "train"}, 'Unknown parameter in input: "Command"'),
        ({"RoleArn": "opportune"}, "RoleArn"),
        ({"OutputDataConfig": {"CompressionType": "NONE"}}, "Missing required parameter.*S3OutputPath"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://b/j", "CompressionType": "ZIP"}}, "enum"),
        ({"ResourceConfig": {"InstanceType": "large", "InstanceCount": 1, "VolumeSizeInGB": 1}}, "enum"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60}}, "MaxWaitTimeInSeconds"),
        ({"AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"}}, "non-ECR image"),
        ({"Environment": {str(n): "" for n in range(200)}}, "environment"),
    ],
)
def test_a_wrong_request_is_refused_with_the_field(ours: dict[str, Any], change: dict[str, Any], words: str) -> None:
    refusal = said("CreateTrainingJob", {**ours, **change})
    assert re.search(words, refusal, re.DOTALL), refusal


def test_requests_that_are_none_are_refused() -> None:
    assert violations("CreateTrainingJob", b"{") == "the request is not JSON"
    assert said("CreateNothing", {}) == "Unknown operation CreateNothing"


@pytest.mark.xdist_group("local-clouds")
def test_nobody_is_answered_who_does_not_sign(local_aws: Any) -> None:
    headers = {"X-Amz-Target": "SageMaker.ListEndpoints", "Content-Type": "application/x-amz-json-1.1"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(local_aws.url, b"{}", headers), timeout=10)
    assert refused.value.code == 403
    assert json.loads(refused.value.read())["__type"] == "MissingAuthenticationToken"
