"""Why the code before releases that containers pull fails on a real account: each of its requests, and the refusal.

The embedded clouds took all of these once, and the loop closed on them; a real account refuses every one.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from azure.core.exceptions import HttpResponseError
from azure.data.tables import TableServiceClient  # noqa: TID251 - the test is a client of its own
from azure.storage.queue import QueueClient  # noqa: TID251
from botocore.exceptions import ClientError  # noqa: TID251

from local.clouds.aws.front import violations
from local.clouds.aws.runtime import SageMakerRules
from local.clouds.azure.schema import BODIES, EndpointPatch, checked
from local.clouds.azure.scoring import ScoringRules
from local.processes.container import ROOT, image_command, image_env
from local.processes.managed_route import RefusedError, Request, Rules
from local.processes.routing_table import RoutingTable, Target
from shared.adapters.aws.session import AwsSession
from shared.adapters.aws.training import SageMakerTraining
from shared.errors import ModelError
from shared.settings import Settings

MIB = 2**20


class Asked(NamedTuple):
    """A request of the code before, and how it is refused."""

    what: str
    ask: Callable[[], str]  # the refusal's words; "" when it was taken
    words: str


def _sagemaker(operation: str, **request: Any) -> Callable[[], str]:
    return lambda: violations(operation, json.dumps(request).encode())


def _azureml(collection: str, body: dict[str, Any]) -> Callable[[], str]:
    def ask() -> str:
        try:
            checked(BODIES.get(collection, EndpointPatch), body)
        except ValueError as exc:
            return str(exc)
        return ""

    return ask


def _route(rules: Callable[[], Rules], method: str, path: str, **headers: str) -> Callable[[], str]:
    def ask() -> str:
        try:
            rules().admit(Request(method, path, headers, b"{}"))
        except RefusedError as exc:
            return f"{exc.answer.status} {exc.answer.body.decode()}"
        return ""

    return ask


class _Table(RoutingTable):
    """One endpoint, one healthy container."""

    def __init__(self) -> None:
        pass

    def read(self) -> dict[str, tuple[Target, ...]]:
        return {"opportune-qa": (Target(name="blue", weight=100.0, ports=(1,)),)}


def _aws() -> Rules:
    return SageMakerRules(_Table())


def _azure() -> Rules:
    return ScoringRules(_Table(), "t0k")


def _served_as_before() -> str:
    """The image's command with the environment that CreateModel gave: none."""
    done = subprocess.run(
        image_command("serve"), env=image_env(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr if done.returncode else ""


BEFORE = [
    Asked("an endpoint's container without our environment has nothing to serve", _served_as_before, "--store"),
    Asked("Prometheus scrapes a SageMaker container", _route(_aws, "GET", "/metrics"), "404"),
    Asked("Prometheus scrapes an Azure ML container", _route(_azure, "GET", "/metrics"), "404"),
    Asked("the cloud loads a model by the admin routes", _route(_aws, "PUT", "/models/m1"), "404"),
    Asked("and activates it", _route(_azure, "POST", "/opportune-qa/models/m1/activate"), "404"),
    Asked("a label at the container's own route", _route(_aws, "POST", "/feedback"), "404"),
    Asked(
        "an unsigned request to the endpoint",
        _route(_aws, "POST", "/endpoints/opportune-qa/invocations"),
        "403 .*MissingAuthenticationToken",
    ),
    Asked("one without a token", _route(_azure, "POST", "/opportune-qa/score"), "401"),
    Asked(
        "an image that SageMaker cannot pull",
        _sagemaker(
            "CreateModel",
            ModelName="qa",
            PrimaryContainer={"Image": "opportune-training:latest"},
            ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
        ),
        "non-ECR image",
    ),
    Asked(
        "a hyperparameter that holds the data",
        _sagemaker(
            "CreateTrainingJob",
            TrainingJobName="qa-1",
            HyperParameters={"pairs": "x" * 2501},
            RoleArn="arn:aws:iam::123456789012:role/r",
            AlgorithmSpecification={"TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://b/j"},
        ),
        "2500",
    ),
    Asked("a deployment without environment and instances",
          _azureml("deployments", {"location": "local", "tags": {"opportune-version": "base"},
                                   "properties": {"endpointComputeType": "Managed", "instanceType": "F2"}}),
          "environmentId"),
    Asked("traffic by PATCH", _azureml("", {"properties": {"traffic": {"m1": 100}}}), "unknown field `properties`"),
    Asked("an endpoint of half its properties", _azureml("onlineEndpoints", {"properties": {"traffic": {"m1": 100}}}),
          "authMode|location"),
]  # fmt: skip


@pytest.mark.parametrize("before", BEFORE, ids=lambda one: one.what)
def test_what_the_code_before_asked_for_is_refused(before: Asked) -> None:
    refusal = before.ask()
    assert re.search(before.words, refusal, re.DOTALL), refusal


def test_a_packed_artifact_is_no_model_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    training = SageMakerTraining(AwsSession(), Settings(bucket="b"))
    packed = {"ModelArtifacts": {"S3ModelArtifacts": "s3://b/jobs/qa-1/output/model.tar.gz"}}
    monkeypatch.setattr(training, "_describe", lambda _: packed)
    with pytest.raises(ModelError, match="no folder"):
        training.model_prefix("qa-1")


@pytest.mark.xdist_group("local-clouds")
def test_messages_and_records_beyond_each_services_limit_are_refused(local_aws: Any, azurite: Any) -> None:
    sqs, dynamodb = local_aws.client("sqs"), local_aws.client("dynamodb")
    queue = sqs.create_queue(QueueName="limits")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="x" * MIB)
    with pytest.raises(ClientError, match="1048576"):
        sqs.send_message(QueueUrl=queue, MessageBody="x" * (MIB + 1))
    dynamodb.create_table(
        TableName="limits",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "kind", "AttributeType": "S"}],
    )
    with pytest.raises(ClientError, match="Item size"):
        dynamodb.put_item(TableName="limits", Item={"kind": {"S": "a"}, "body": {"S": "x" * 400 * 1024}})

    storage = QueueClient.from_connection_string(azurite.connection, "limits")
    storage.create_queue()
    storage.send_message("x" * 64 * 1024)
    with pytest.raises(HttpResponseError, match="too large"):
        storage.send_message("x" * (64 * 1024 + 1))
    table = TableServiceClient.from_connection_string(azurite.connection).create_table("limits")
    entity = {"PartitionKey": "a", "RowKey": "b"}
    with pytest.raises(HttpResponseError, match="64KB"):
        table.upsert_entity({**entity, "body": b"x" * (64 * 1024 + 1)})
    with pytest.raises(HttpResponseError, match="1MB"):
        table.upsert_entity({**entity, **{f"body{n}": b"x" * 64 * 1024 for n in range(17)}})
