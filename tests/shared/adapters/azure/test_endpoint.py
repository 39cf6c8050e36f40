"""What an Azure ML online endpoint says of itself, in every state."""

import msgspec
import pytest

from shared.adapters.azure.endpoint import AzureMLEndpoint
from shared.settings import Settings
from shared.values import HostState

SETTINGS = Settings(azureml_token="t0k")
ADDRESS = "https://opportune-qa.westeurope.inference.ml.azure.com/score"


@pytest.fixture
def told(credential, monkeypatch):
    """A function: the endpoint's properties (None: there is none), its deployments' states, settings -> the state."""

    def make(properties, states=(), settings=SETTINGS):
        host = AzureMLEndpoint(settings, credential)
        found = [{"name": name, "properties": {"provisioningState": state}} for name, state in dict(states).items()]
        monkeypatch.setattr(host._workspace, "get", lambda _: properties and {"properties": properties})
        monkeypatch.setattr(host._workspace, "call", lambda *_: {"value": found})
        return host.state()

    return make


def test_the_http_face_is_the_configured_one_else_the_endpoints_which_wants_a_token(told):
    properties = {"scoringUri": ADDRESS, "traffic": {"blue": 100}}
    configured = msgspec.structs.replace(SETTINGS, azure_endpoint_url="http://proxy:1")
    for settings, url in ((configured, "http://proxy:1"), (SETTINGS, f"azureml:{ADDRESS}")):
        assert told(properties, {"blue": "Succeeded"}, settings) == HostState(None, url)


@pytest.mark.parametrize(
    ("traffic", "states", "healthy", "updating"),
    [
        ({"a": 90, "b": 10}, {"a": "Succeeded", "b": "Failed"}, True, False),
        ({"a": 10, "b": 90}, {"a": "Succeeded", "b": "Updating"}, True, True),
        ({"a": 100}, {"a": "Failed"}, False, False),
        ({"a": 100}, {"a": "Deleting"}, False, True),
        ({"a": 100}, {}, False, False),  # deleted under the traffic
        ({"a": 0}, {"a": "Succeeded"}, False, False),
        ({}, {"a": "Creating"}, False, True),
    ],
)
def test_the_deployment_with_the_largest_share_of_the_traffic_counts(told, traffic, states, healthy, updating):
    state = told({"scoringUri": ADDRESS, "traffic": traffic}, states)
    assert (state.version, state.healthy, state.updating) == (None, healthy, updating)
    assert healthy or state.reason


def test_an_endpoint_that_is_not_there_is_told_so(told):
    state = told(None)
    assert (state.healthy, state.reason) == (False, "Azure ML onlineEndpoints/opportune-qa does not exist")
    assert not told({"traffic": {"a": 100}}, {"a": "Succeeded"}).healthy, "it has no address yet"
