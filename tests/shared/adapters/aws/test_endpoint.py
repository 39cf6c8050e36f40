"""What a SageMaker endpoint says of itself, in every state."""

import pytest

from shared.adapters.aws import endpoint as adapter
from shared.adapters.aws.endpoint import SageMakerEndpoint
from shared.adapters.aws.session import AwsSession
from shared.errors import UnavailableError
from shared.settings import Settings
from shared.values import HostState

SETTINGS = Settings(sagemaker_endpoint="opportune-qa")


@pytest.fixture
def told(monkeypatch):
    """A function: SageMaker's description (None: there is no such endpoint) and the settings -> the state."""

    def make(endpoint, settings=SETTINGS):
        monkeypatch.setattr(adapter, "described", lambda what, call: endpoint)
        return SageMakerEndpoint(AwsSession(), settings).state()

    return make


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
def test_each_state_says_whether_it_answers_and_whether_it_is_being_changed(told, status, healthy, updating):
    state = told({"EndpointStatus": status, "ProductionVariants": [{"VariantName": "AllTraffic"}]})
    assert (state.version, state.healthy, state.updating) == (None, healthy, updating)
    assert healthy or status in state.reason


@pytest.mark.parametrize(
    ("weights", "takes"), [([0.0, 0.9, 0.1], True), ([0.0, 0.0], False), ([1.0], True), ([None], True), ([], False)]
)
def test_whatever_the_variants_are_called_one_must_take_traffic(told, weights, takes):
    variants = [{"VariantName": f"v{n}"} | ({} if w is None else {"CurrentWeight": w}) for n, w in enumerate(weights)]
    state = told({"EndpointStatus": "InService", "ProductionVariants": variants})
    assert state.healthy is takes
    assert takes or state.reason == "no variant of SageMaker endpoint opportune-qa takes traffic"


def test_an_endpoint_that_failed_is_told_with_its_reason(told):
    state = told({"EndpointStatus": "Failed", "FailureReason": "no capacity", "ProductionVariants": []})
    assert state.reason == "SageMaker endpoint opportune-qa is Failed: no capacity"


def test_an_endpoint_that_is_not_there_and_an_answer_without_a_state_are_not_the_same(told):
    state = told(None)
    assert (state.healthy, state.reason) == (False, "SageMaker endpoint opportune-qa does not exist")
    with pytest.raises(UnavailableError, match="EndpointStatus"):
        told({})


def test_the_http_face_is_the_configured_one_else_sagemakers(told):
    there = {"EndpointStatus": "InService", "ProductionVariants": [{"VariantName": "x"}]}
    assert told(there, Settings(aws_endpoint_url="http://proxy:1")) == HostState(None, "http://proxy:1")
    assert told(there) == HostState(None, "sagemaker:opportune-qa")
