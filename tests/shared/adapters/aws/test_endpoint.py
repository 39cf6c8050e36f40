"""SageMaker endpoints against the embedded AWS."""

import time

import pytest

from shared.adapters.aws.endpoint import SageMakerHost
from shared.adapters.aws.session import AwsSession
from shared.errors import RefusedError
from shared.settings import Settings
from shared.values import HostState

pytestmark = pytest.mark.xdist_group("sagemaker")

SETTINGS = Settings(sagemaker_endpoint="opportune-qa")


def test_an_endpoint_is_created_then_swapped_and_repeats_are_harmless(sagemaker_session):
    host = SageMakerHost(sagemaker_session, SETTINGS)
    assert host.state().version is None
    for version in ("v1", "v1", "v2"):
        deadline = time.monotonic() + 20
        while host.state().version != version:
            host.deploy(version, "s3://opportune/models/m1/model.tar.gz")
            assert time.monotonic() < deadline
            time.sleep(0.05)
    host.deploy("v2", "s3://opportune/models/m1/model.tar.gz")
    assert host.state().version == "v2"


def test_a_long_version_still_gets_a_valid_and_distinct_name():
    host = SageMakerHost(AwsSession(), SETTINGS)
    names = {host._name("v" * 60 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


@pytest.mark.parametrize(
    ("status", "healthy", "updating"),
    [
        ("InService", True, False),
        ("Updating", True, True),
        ("SystemUpdating", True, True),
        ("RollingBack", True, True),
        ("Creating", False, True),
        ("Deleting", False, True),
        ("OutOfService", False, False),
        ("UpdateRollbackFailed", False, False),
        ("Failed", False, False),
        ("SomethingNew", False, False),
    ],
)
def test_each_state_says_whether_it_answers_and_whether_it_is_being_changed(monkeypatch, status, healthy, updating):
    host = SageMakerHost(AwsSession(), SETTINGS)
    variants = [{"VariantName": "m1"}]
    monkeypatch.setattr(host, "_describe", lambda: {"EndpointStatus": status, "ProductionVariants": variants})
    state = host.state()
    assert (state.healthy, state.updating) == (healthy, updating)
    assert state.version == (None if status == "Creating" else "m1")
    assert healthy or status in state.reason


def test_the_variant_with_the_largest_share_of_the_traffic_serves(monkeypatch):
    host = SageMakerHost(AwsSession(), SETTINGS)
    variants = [{"VariantName": "old", "CurrentWeight": 0.0}, {"VariantName": "new", "CurrentWeight": 0.9}]
    told = {
        "EndpointStatus": "InService",
        "ProductionVariants": [*variants, {"VariantName": "x", "CurrentWeight": 0.1}],
    }
    monkeypatch.setattr(host, "_describe", lambda: told)
    assert host.state().version == "new"


def test_an_endpoint_that_failed_is_told_with_its_reason_and_takes_no_version(monkeypatch):
    host = SageMakerHost(AwsSession(), SETTINGS)
    told = {"EndpointStatus": "Failed", "FailureReason": "no capacity", "EndpointConfigName": "x"}
    monkeypatch.setattr(host, "_describe", lambda: told)
    assert "no capacity" in host.state().reason
    with pytest.raises(RefusedError, match="Failed: no capacity; delete it"):
        host.deploy("m2", "s3://b/k")


def test_the_http_face_is_the_configured_one_else_sagemakers(monkeypatch):
    for settings, url in (
        (Settings(aws_endpoint_url="http://proxy:1"), "http://proxy:1"),
        (SETTINGS, "sagemaker:opportune-qa"),
    ):
        host = SageMakerHost(AwsSession(), settings)
        monkeypatch.setattr(host, "_describe", lambda: None)
        assert host.state() == HostState(None, url)
