"""An endpoint update of the embedded SageMaker loads the artifact into the serving process and swaps it."""

import io
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError  # noqa: TID251 - the test is a client of its own

pytestmark = pytest.mark.xdist_group("local-clouds")


def archive() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO(b""))
    return raw.getvalue()


@pytest.fixture(scope="module")
def endpoint(local_aws: Any, serving: Any) -> Any:
    s3, sagemaker = local_aws.client("s3"), local_aws.client("sagemaker")
    s3.create_bucket(Bucket="models")
    for version in ("v2", "broken3", "broken5"):
        s3.put_object(Bucket="models", Key=f"{version}/model.tar.gz", Body=archive())
    for version in ("base", "v2", "broken3", "gone4", "broken5"):
        container = {"Image": "image:1"}
        if version != "base":
            container["ModelDataUrl"] = f"s3://models/{version}/model.tar.gz"
        sagemaker.create_model(ModelName=version, PrimaryContainer=container, ExecutionRoleArn="arn:aws:iam::1:role/r")
        variant = {
            "VariantName": version,
            "ModelName": version,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
        }
        sagemaker.create_endpoint_config(EndpointConfigName=version, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="qa", EndpointConfigName="base")
    assert settled(sagemaker)["EndpointStatus"] == "InService"
    return sagemaker


def settled(sagemaker: Any) -> Any:
    deadline = time.monotonic() + 15
    while True:
        found = sagemaker.describe_endpoint(EndpointName="qa")
        if found["EndpointStatus"] not in ("Creating", "Updating"):
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_update_unpacks_the_artifact_loads_it_and_then_activates_it(endpoint: Any, serving: Any) -> None:
    serving.calls.clear()
    endpoint.update_endpoint(EndpointName="qa", EndpointConfigName="v2")
    found = settled(endpoint)
    assert found["ProductionVariants"][0]["VariantName"] == found["EndpointConfigName"] == "v2"
    assert serving.calls == [("PUT", "/models/v2", ["manifest.json"]), ("POST", "/models/v2/activate", {})]


@pytest.mark.parametrize(
    ("version", "reason"),
    [("broken3", "sha256 differs"), ("gone4", "no model data at s3://"), ("broken5", "no config.json")],
)
def test_a_version_that_cannot_load_leaves_the_old_one_in_service_with_the_reason(
    endpoint: Any, version: Any, reason: Any
) -> None:
    endpoint.update_endpoint(EndpointName="qa", EndpointConfigName="v2")
    settled(endpoint)
    endpoint.update_endpoint(EndpointName="qa", EndpointConfigName=version)
    found = settled(endpoint)
    assert found["EndpointStatus"] == "InService"
    assert found["EndpointConfigName"] == "v2"
    assert reason in found["FailureReason"]


def test_models_configurations_and_endpoints_cannot_be_made_twice_or_out_of_nothing(endpoint: Any) -> None:
    container = {"Image": "image:1"}
    with pytest.raises(ClientError, match="already existing model"):
        endpoint.create_model(ModelName="base", PrimaryContainer=container, ExecutionRoleArn="arn:aws:iam::1:role/r")
    with pytest.raises(ClientError, match="already existing endpoint"):
        endpoint.create_endpoint(EndpointName="qa", EndpointConfigName="base")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        endpoint.update_endpoint(EndpointName="nobody", EndpointConfigName="base")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        endpoint.update_endpoint(EndpointName="qa", EndpointConfigName="nobody")
