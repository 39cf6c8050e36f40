"""A SageMaker endpoint made from nothing, or adopted: against moto, whose requests botocore checks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.adapters.aws.endpoint_setup import SageMakerSetup
from shared.adapters.aws.session import AwsSession
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("clouds")

ROLE = "arn:aws:iam::123456789012:role/serve"
SETTINGS = Settings(
    service="faq",
    bucket="data",
    aws_region="us-east-1",
    sagemaker_endpoint="opportune-faq",
    sagemaker_serve_instance_type="ml.c5.xlarge",  # moto does not know the newer ones
    sagemaker_serve_role_arn=ROLE,
    sagemaker_image="123456789012.dkr.ecr.us-east-1.amazonaws.com/opportune-training:7",
    metrics_write_url_aws="https://aps/api/v1/remote_write",
)


@pytest.fixture
def setup(moto: None) -> SageMakerSetup:
    return SageMakerSetup(AwsSession(), SETTINGS)


def test_it_is_made_once_with_what_its_containers_need(setup: SageMakerSetup) -> None:
    assert setup.standing().state == ""
    for _ in range(2):
        setup.create()
    sagemaker = AwsSession().client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName="opportune-faq")
    variant = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])[
        "ProductionVariants"
    ][0]
    assert (variant["VariantName"], variant["InstanceType"]) == ("AllTraffic", "ml.c5.xlarge")
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    assert model["ExecutionRoleArn"] == ROLE
    assert model["PrimaryContainer"]["Image"] == SETTINGS.sagemaker_image
    assert "ModelDataUrl" not in model["PrimaryContainer"]
    assert model["PrimaryContainer"]["Environment"] == {
        "OPPORTUNE_SERVICE": "faq",
        "OPPORTUNE_CLOUD": "aws",
        "OPPORTUNE_SERVE_STORE": "s3://data",
        "OPPORTUNE_METRICS_WRITE_URL": "https://aps/api/v1/remote_write",
        "OPPORTUNE_METRICS_WRITE_AUTH": "sigv4",
        "AWS_REGION": "us-east-1",
    }
    assert variant["ModelName"].startswith("opportune-faq-"), "what the roles may make"
    assert len([one for one in sagemaker.list_models()["Models"] if one["ModelName"].startswith("opportune-faq-")]) == 1
    assert setup.standing().lacks == ""


def test_one_made_by_hand_is_adopted_and_what_it_lacks_is_said(moto: None) -> None:
    setup = SageMakerSetup(AwsSession(), msgspec.structs.replace(SETTINGS, sagemaker_endpoint="opportune-mine"))
    sagemaker = AwsSession().client("sagemaker")
    sagemaker.create_model(ModelName="by-hand", PrimaryContainer={"Image": "x"}, ExecutionRoleArn=ROLE)
    sagemaker.create_endpoint_config(
        EndpointConfigName="by-hand",
        ProductionVariants=[
            {"VariantName": "mine", "ModelName": "by-hand", "InitialInstanceCount": 3, "InstanceType": "ml.m5.large"}
        ],
    )
    sagemaker.create_endpoint(EndpointName="opportune-mine", EndpointConfigName="by-hand")
    lacks = setup.standing().lacks
    assert "OPPORTUNE_SERVICE=faq" in lacks
    assert "OPPORTUNE_SERVE_STORE=s3://data" in lacks


@pytest.mark.parametrize(
    ("status", "ready", "failed"),
    [
        ("Creating", False, False),
        ("InService", True, False),
        ("Updating", True, False),
        ("Failed", False, True),
        ("OutOfService", False, True),
        ("SomethingNew", False, False),
    ],
)
def test_each_state_says_what_is_waited_for_or_what_to_do(status: str, ready: bool, failed: bool) -> None:
    class Client:
        def describe_endpoint(self, **_: Any) -> dict[str, Any]:
            return {"EndpointStatus": status, "EndpointConfigName": "c", "FailureReason": "" if ready else "no image"}

        def describe_endpoint_config(self, **_: Any) -> dict[str, Any]:
            return {}

    class Session:
        def client(self, _: str) -> Client:
            return Client()

    session: Any = Session()
    standing = SageMakerSetup(session, SETTINGS).standing()
    assert (standing.state, standing.ready, standing.failed) == (status, ready, failed)
    if failed:
        assert "no image; mend it, then: aws sagemaker delete-endpoint --endpoint-name opportune-faq" in standing.reason


def test_a_long_name_stays_within_the_limit_and_follows_the_content() -> None:
    long = SageMakerSetup(AwsSession(), Settings(sagemaker_endpoint="e" * 60))
    assert len(long._named([1])) <= 63
    assert long._named([1]) != long._named([2])
