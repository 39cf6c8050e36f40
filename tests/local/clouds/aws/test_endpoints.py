"""SageMaker endpoints on this machine: containers from the call alone, states that take time, one way in."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError  # noqa: TID251 - the test is a client of its own

pytestmark = pytest.mark.xdist_group("local-clouds")

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/opportune:1"
ROLE = "arn:aws:iam::123456789012:role/serve"


def configure(sagemaker: Any, name: str, environment: dict[str, str] | None = None, count: int = 1) -> None:
    """A model and a configuration of that name."""
    container: dict[str, Any] = {"Image": IMAGE} | ({"Environment": environment} if environment else {})
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": count,
        "InstanceType": "ml.c6i.xlarge",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def settled(sagemaker: Any, name: str) -> Any:
    """The endpoint once nothing changes any more, and the states that were seen before, under `seen`."""
    deadline, seen = time.monotonic() + 60, []
    while True:
        found = sagemaker.describe_endpoint(EndpointName=name)
        seen += [found["EndpointStatus"]] if found["EndpointStatus"] not in seen else []
        if found["EndpointStatus"] in ("InService", "Failed"):
            return {**found, "seen": seen}
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def ask(local_aws: Any, name: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
    answer = local_aws.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType="application/json", Body=json.dumps(body or {}).encode(), **more
    )
    return {**json.loads(answer["Body"].read()), "variant": answer["InvokedProductionVariant"]}


@pytest.fixture(scope="module")
def sagemaker(local_aws: Any) -> Any:
    return local_aws.client("sagemaker")


@pytest.fixture(scope="module")
def endpoint(sagemaker: Any) -> Iterator[str]:
    """Two instances that were told one thing."""
    configure(sagemaker, "first", {"TOLD": "by CreateModel"}, count=2)
    sagemaker.create_endpoint(EndpointName="qa", EndpointConfigName="first")
    found = settled(sagemaker, "qa")
    assert found["seen"] == ["Creating", "InService"]
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    yield "qa"
    sagemaker.delete_endpoint(EndpointName="qa")


def test_a_container_knows_what_the_call_said_what_sagemaker_sets_and_nothing_else(
    endpoint: str, local_aws: Any
) -> None:
    told = ask(local_aws, endpoint)["env"]
    assert told["TOLD"] == "by CreateModel"
    assert int(told["SAGEMAKER_BIND_TO_PORT"]) > 0
    assert told["AWS_REGION"] == "us-east-1" and told["AWS_ENDPOINT_URL"] == local_aws.url
    ours = {name for name in told if name.startswith(("OPPORTUNE_", "AZURE"))}
    assert ours == {"OPPORTUNE_SERVE_HOST"}, "its machine's own, no setting"


def test_every_instance_is_a_process_and_one_that_ends_is_replaced(
    endpoint: str, local_aws: Any, eventually: Any
) -> None:
    def asked() -> set[int]:
        return {ask(local_aws, endpoint)["pid"] for _ in range(12)}

    both = asked()
    assert len(both) == 2
    os.kill(min(both), signal.SIGKILL)
    time.sleep(0.5)  # until it is noticed, requests may fail, as they do on the real one
    assert max(both) in asked(), "the other one answers meanwhile"
    eventually(lambda: len(asked() - {min(both)}) == 2)


def test_the_custom_attributes_reach_the_container_and_no_other_header_does(endpoint: str, local_aws: Any) -> None:
    answer = ask(local_aws, endpoint, CustomAttributes="X-Opportune-Version=m1", Accept="application/json")
    assert answer["variant"] == "AllTraffic" and answer["path"] == "/invocations"
    headers = answer["headers"]
    assert headers["x-amzn-sagemaker-custom-attributes"] == "X-Opportune-Version=m1"
    assert "authorization" not in headers and "x-amz-date" not in headers


def test_what_a_container_refuses_is_a_model_error_with_its_status(endpoint: str, local_aws: Any) -> None:
    with pytest.raises(ClientError) as refused:
        ask(local_aws, endpoint, {"status": 409})
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert refused.value.response["OriginalStatusCode"] == 409


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [("x" * 1024, True), ("x" * 1025, False), ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", False)],
)
def test_custom_attributes_are_1024_visible_ascii_characters(
    endpoint: str, local_aws: Any, attributes: str, allowed: bool
) -> None:
    known = {"Authorization": signed(), "X-Amz-Date": now(), "X-Amzn-SageMaker-Custom-Attributes": attributes}
    assert raw(f"{local_aws.runtime_url}/endpoints/{endpoint}/invocations", known) == (200 if allowed else 400)


def now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def signed(service: str = "sagemaker", day: str = "") -> str:
    scope = f"AKIA/{day or now()[:8]}/us-east-1/{service}/aws4_request"
    names = "content-type;host;x-amz-date;x-amzn-sagemaker-custom-attributes"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={'0' * 64}"


def raw(url: str, headers: dict[str, str], body: bytes = b"{}", method: str = "POST") -> int:
    request = urllib.request.Request(url, body if method == "POST" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        (dict, 403),
        (lambda: {"Authorization": "Bearer t", "X-Amz-Date": now()}, 403),
        (lambda: {"Authorization": signed("s3"), "X-Amz-Date": now()}, 403),
        (lambda: {"Authorization": signed(day="20200101"), "X-Amz-Date": "20200101T000000Z"}, 403),
        (lambda: {"Authorization": signed()}, 403),
        (lambda: {"Authorization": signed(), "X-Amz-Date": now()}, 200),
    ],
)
def test_the_runtime_answers_nobody_who_does_not_sign_for_it_now(
    endpoint: str, local_aws: Any, proof: Any, status: int
) -> None:
    assert raw(f"{local_aws.runtime_url}/endpoints/{endpoint}/invocations", proof()) == status


@pytest.mark.parametrize("path", ["/metrics", "/models", "/ping", "/endpoints/qa/metrics", "/endpoints/qa"])
def test_nothing_else_of_a_container_can_be_reached(endpoint: str, local_aws: Any, path: str) -> None:
    proof = {"Authorization": signed(), "X-Amz-Date": now()}
    for base in (local_aws.runtime_url, local_aws.url):
        if base == local_aws.url and not path.startswith("/endpoints"):
            continue  # moto's own address
        assert raw(f"{base}{path}", proof) == raw(f"{base}{path}", proof, method="GET") == 404


def test_a_request_of_more_than_6_mb_is_refused(endpoint: str, local_aws: Any) -> None:
    with pytest.raises(ClientError) as refused:
        ask(local_aws, endpoint, {"filler": "x" * (6 * 2**20)})
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


@pytest.mark.parametrize("fault", ["unhealthy", "ends"])
def test_an_update_whose_container_is_not_healthy_is_rolled_back_with_the_reason(
    endpoint: str, sagemaker: Any, local_aws: Any, fault: str
) -> None:
    configure(sagemaker, f"bad-{fault}", {"FAIL": fault})
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=f"bad-{fault}")
    for change in (
        lambda: sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName="first"),
        lambda: sagemaker.delete_endpoint(EndpointName=endpoint),
    ):
        with pytest.raises(ClientError, match="in-progress"):
            change()
    assert ask(local_aws, endpoint)["env"]["TOLD"] == "by CreateModel", "the old one answers meanwhile"
    found = settled(sagemaker, endpoint)
    assert found["seen"] == ["Updating", "RollingBack", "InService"]
    assert found["EndpointConfigName"] == "first"
    assert "AllTraffic did not pass the health check /ping" in found["FailureReason"]


def test_an_update_brings_new_containers_beside_the_old_ones(endpoint: str, sagemaker: Any, local_aws: Any) -> None:
    before = {ask(local_aws, endpoint)["pid"] for _ in range(12)}
    configure(sagemaker, "second", {"TOLD": "again"})
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName="second")
    found = settled(sagemaker, endpoint)
    assert found["seen"] == ["Updating", "InService"] and found["EndpointConfigName"] == "second"
    assert ask(local_aws, endpoint)["env"]["TOLD"] == "again"
    deadline = time.monotonic() + 15
    while any(psutil.pid_exists(pid) for pid in before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in before)


def test_an_endpoint_whose_container_never_starts_is_failed_and_its_deletion_ends_the_processes(
    sagemaker: Any, local_aws: Any
) -> None:
    configure(sagemaker, "never", {"FAIL": "unhealthy"})
    sagemaker.create_endpoint(EndpointName="never", EndpointConfigName="never")
    with pytest.raises(ClientError, match="not found"):
        ask(local_aws, "never")
    assert settled(sagemaker, "never")["EndpointStatus"] == "Failed"
    sagemaker.delete_endpoint(EndpointName="never")
    assert sagemaker.describe_endpoint(EndpointName="never")["EndpointStatus"] == "Deleting"
    deadline = time.monotonic() + 20
    with pytest.raises(ClientError, match="Could not find endpoint"):
        while time.monotonic() < deadline:
            sagemaker.describe_endpoint(EndpointName="never")
            time.sleep(0.1)


def test_models_configurations_and_endpoints_cannot_be_made_twice_or_out_of_nothing(
    endpoint: str, sagemaker: Any
) -> None:
    with pytest.raises(ClientError, match="already existing model"):
        configure(sagemaker, "first")
    with pytest.raises(ClientError, match="already existing endpoint"):
        sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName="first")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        sagemaker.update_endpoint(EndpointName="nobody", EndpointConfigName="first")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName="nobody")


def test_a_quota_or_a_missing_permission_can_be_asked_for(endpoint: str, sagemaker: Any, local_aws: Any) -> None:
    local_aws.refuse({"CreateEndpoint": {"code": "ResourceLimitExceeded", "message": "0 ml.c6i.xlarge", "times": 1}})
    with pytest.raises(ClientError, match=r"ResourceLimitExceeded.*0 ml\.c6i\.xlarge"):
        sagemaker.create_endpoint(EndpointName="other", EndpointConfigName="first")
    local_aws.refuse({"s3:PutObject": {"code": "AccessDenied", "status": 403}})
    s3 = local_aws.client("s3")
    s3.create_bucket(Bucket="denied")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket="denied", Key="a/b", Body=b"x")
    local_aws.refuse({})
    s3.put_object(Bucket="denied", Key="a/b", Body=b"x")
