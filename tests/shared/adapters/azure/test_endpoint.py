"""Azure ML's online endpoints against the embedded workspace over Azurite."""

import time

import msgspec
import pytest

from shared.adapters.azure.endpoint import AzureMLHost
from shared.adapters.azure.workspace import Workspace
from shared.errors import RefusedError
from shared.values import HostState

pytestmark = pytest.mark.xdist_group("clouds")


def test_traffic_moves_to_a_version_once_its_deployment_is_ready(workspace_settings, credential, objects, a_tar):
    host = AzureMLHost(workspace_settings, credential)
    assert host.state().version is None
    Workspace(workspace_settings, credential).call(
        "PUT",
        f"onlineEndpoints/{workspace_settings.azureml_endpoint}",
        {"location": "x", "properties": {"authMode": "AADToken"}},
    )
    for version in ("m1", "a-version-with-a-name-too-long-for-a-deployment"):
        objects.put(f"models/{version}/model.tar.gz", a_tar({"config.json": b""}))
        deadline = time.monotonic() + 20
        while host.state().version != version:
            host.deploy(version, objects.uri(f"models/{version}/model.tar.gz"))
            assert time.monotonic() < deadline
            time.sleep(0.05)
        host.deploy(version, objects.uri(f"models/{version}/model.tar.gz"))
    with pytest.raises(RefusedError, match="m-none is Failed"):
        for _ in range(100):
            host.deploy("m-none", objects.uri("models/none/model.tar.gz"))
            time.sleep(0.05)
    assert host.state().version == "a-version-with-a-name-too-long-for-a-deployment", "the old one goes on serving"


def answering(host, monkeypatch, endpoint, deployments=(), sent=None):
    """The workspace's answers, and what is PUT to it."""

    def call(method, resource, body=None):
        if method == "PUT":
            sent.append((resource, body))
            return {}
        if resource.endswith("/deployments"):
            return {"value": list(deployments)}
        if "/deployments/" in resource:
            return next(one for one in deployments if one["name"] == resource.rpartition("/")[2])
        return endpoint

    monkeypatch.setattr(host._workspace, "call", call)
    monkeypatch.setattr(host._workspace, "get", lambda resource: call("GET", resource))


def deployment(name, state="Succeeded", version=None):
    return {"name": name, "tags": {"opportune-version": version or name}, "properties": {"provisioningState": state}}


ADDRESS = "https://opportune-qa.westeurope.inference.ml.azure.com/score"


def test_the_http_face_is_the_configured_one_else_the_endpoints_which_wants_a_token(
    workspace_settings, credential, monkeypatch
):
    properties = {"scoringUri": ADDRESS, "traffic": {"m1": 100}}
    configured = msgspec.structs.replace(workspace_settings, azure_endpoint_url="http://proxy:1")
    for settings, url in ((configured, "http://proxy:1"), (workspace_settings, f"azureml:{ADDRESS}")):
        host = AzureMLHost(settings, credential)
        answering(host, monkeypatch, {"properties": properties}, [deployment("m1")])
        assert host.state() == HostState("m1", url)


@pytest.mark.parametrize(
    ("traffic", "states", "version", "healthy", "updating"),
    [
        ({"a": 90, "b": 10}, {"a": "Succeeded", "b": "Succeeded"}, "a", True, False),
        ({"a": 10, "b": 90}, {"a": "Succeeded", "b": "Updating"}, "b", True, True),
        ({"a": 100}, {"a": "Failed"}, "a", False, False),
        ({"a": 100}, {}, "a", False, False),  # deleted under the traffic
        ({"a": 0}, {"a": "Succeeded"}, None, False, False),
        ({}, {"a": "Creating"}, None, False, True),
    ],
)
def test_the_largest_share_of_the_traffic_serves_and_states_are_told(
    workspace_settings, credential, monkeypatch, traffic, states, version, healthy, updating
):
    host = AzureMLHost(workspace_settings, credential)
    properties = {"scoringUri": ADDRESS, "traffic": traffic}
    answering(host, monkeypatch, {"properties": properties}, [deployment(n, state) for n, state in states.items()])
    state = host.state()
    assert (state.version, state.healthy, state.updating) == (version, healthy, updating)
    assert healthy or state.reason


def test_moving_the_traffic_writes_back_everything_else_as_it_was(workspace_settings, credential, monkeypatch):
    host, sent = AzureMLHost(workspace_settings, credential), []
    endpoint = {
        "location": "westeurope",
        "tags": {"team": "search"},
        "identity": {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"},
        "properties": {
            "authMode": "Key",
            "publicNetworkAccess": "Disabled",
            "description": "the helpdesk's",
            "traffic": {"model-1": 100},
            "scoringUri": ADDRESS,
            "provisioningState": "Succeeded",
        },
    }
    answering(host, monkeypatch, endpoint, [deployment("model-1"), deployment("model-2")], sent)
    host.deploy("model-2", "uri")
    ((resource, body),) = sent
    assert resource == f"onlineEndpoints/{workspace_settings.azureml_endpoint}"
    assert (body["location"], body["tags"]) == ("westeurope", {"team": "search"})
    assert body["identity"] == {"type": "SystemAssigned"}, "what only the service may say is left out"
    assert body["properties"] == {
        "authMode": "Key",
        "publicNetworkAccess": "Disabled",
        "description": "the helpdesk's",
        "traffic": {"model-2": 100},
    }
