"""Azure ML's online endpoints against the embedded workspace over Azurite."""

import time

import msgspec
import pytest

from shared.adapters.azure.endpoint import AzureMLHost
from shared.adapters.azure.workspace import Workspace
from shared.errors import ModelError, UnavailableError

pytestmark = pytest.mark.xdist_group("clouds")


def test_traffic_moves_to_a_version_once_its_deployment_is_ready(workspace_settings, credential, objects, a_tar):
    host = AzureMLHost(workspace_settings, credential)
    assert host.serving_version() is None
    Workspace(workspace_settings, credential).call(
        "PUT",
        f"onlineEndpoints/{workspace_settings.azureml_endpoint}",
        {"location": "x", "properties": {"authMode": "AADToken"}},
    )
    for version in ("m1", "a-version-with-a-name-too-long-for-a-deployment"):
        objects.put(f"models/{version}/model.tar.gz", a_tar({"config.json": b""}))
        deadline = time.monotonic() + 20
        while host.serving_version() != version:
            host.deploy(version, objects.uri(f"models/{version}/model.tar.gz"))
            assert time.monotonic() < deadline
            time.sleep(0.05)
        host.deploy(version, objects.uri(f"models/{version}/model.tar.gz"))
    with pytest.raises(ModelError, match="m-none is Failed"):
        for _ in range(100):
            host.deploy("m-none", objects.uri("models/none/model.tar.gz"))
            time.sleep(0.05)
    assert host.serving_version() == "a-version-with-a-name-too-long-for-a-deployment", "the old one goes on serving"


def test_the_http_face_is_the_configured_one_else_the_endpoints(workspace_settings, credential):
    configured = msgspec.structs.replace(workspace_settings, azure_endpoint_url="http://proxy:1")
    assert AzureMLHost(configured, credential).endpoint_url() == "http://proxy:1"


def test_the_endpoints_own_address_is_marked_as_one_that_wants_a_token(workspace_settings, credential, monkeypatch):
    host = AzureMLHost(workspace_settings, credential)
    address = "https://opportune-qa.westeurope.inference.ml.azure.com/score"
    for properties in ({"scoringUri": address}, {}):
        monkeypatch.setattr(host._workspace, "call", lambda *_, told=properties: {"properties": told})
        if properties:
            assert host.endpoint_url() == f"azureml:{address}"
        else:
            with pytest.raises(UnavailableError, match="no scoring address"):
                host.endpoint_url()
