"""SageMaker endpoints against the embedded AWS."""

import time

import pytest

from shared.adapters.aws.endpoint import SageMakerHost
from shared.adapters.aws.session import AwsSession
from shared.errors import ModelError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("sagemaker")

SETTINGS = Settings(sagemaker_endpoint="opportune-qa")


def test_an_endpoint_is_created_then_swapped_and_repeats_are_harmless(sagemaker_session):
    host = SageMakerHost(sagemaker_session, SETTINGS)
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
    host = SageMakerHost(AwsSession(), SETTINGS)
    names = {host._name("v" * 60 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_an_endpoint_that_failed_is_an_error_with_its_reason(monkeypatch):
    host = SageMakerHost(AwsSession(), SETTINGS)
    monkeypatch.setattr(host, "_describe", lambda: {"EndpointStatus": "Failed", "FailureReason": "no capacity"})
    with pytest.raises(ModelError, match="no capacity"):
        host.serving_version()


def test_the_http_face_is_the_configured_one_else_sagemakers():
    assert SageMakerHost(AwsSession(), Settings(aws_endpoint_url="http://proxy:1")).endpoint_url() == "http://proxy:1"
    assert SageMakerHost(AwsSession(), SETTINGS).endpoint_url() == "sagemaker:opportune-qa"
