"""An Azure ML endpoint made step by step, or adopted: what is PUT, in which order, and what is left as it was."""

from __future__ import annotations

from typing import Any

import pytest

from shared.adapters.azure.credential import StaticToken
from shared.adapters.azure.endpoint_setup import AzureMLSetup
from shared.errors import ConfigurationError
from shared.settings import Settings

SETTINGS = Settings(
    service="faq",
    container="data",
    azure_storage_account="store",
    azureml_endpoint="opp-1",
    azureml_image="reg.azurecr.io/opportune-training:1",
    azureml_region="northeurope",
)


class Arm:
    """A workspace that keeps what is PUT; everything is ready at once unless a test says otherwise."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.puts: list[str] = []

    def call(self, method: str, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if method == "PUT":
            assert body is not None
            self.puts.append(resource)
            properties = {**body["properties"], "provisioningState": "Succeeded"}
            self.held[resource] = {**body, "name": resource.rpartition("/")[2], "properties": properties}
            return self.held[resource]
        if resource.endswith("/deployments"):
            return {"value": [one for key, one in self.held.items() if key.startswith(f"{resource}/")]}
        return self.held[resource]

    def get(self, resource: str) -> dict[str, Any] | None:
        return self.held.get(resource)


@pytest.fixture
def arm() -> Arm:
    return Arm()


def setup(arm: Arm, settings: Settings = SETTINGS) -> AzureMLSetup:
    made = AzureMLSetup(settings, StaticToken("t"))
    workspace: Any = made._workspace
    workspace.call, workspace.get = arm.call, arm.get
    return made


def test_it_is_made_step_by_step_and_repeats_change_nothing(arm: Arm) -> None:
    made = setup(arm)
    assert made.standing().state == ""
    for _ in range(5):
        made.create()
    assert arm.puts == [
        "environments/opportune-training/versions/1",
        "onlineEndpoints/opp-1",
        "onlineEndpoints/opp-1/deployments/blue",
        "onlineEndpoints/opp-1",
    ]
    assert made.standing().ready
    environment = arm.held["environments/opportune-training/versions/1"]["properties"]
    assert environment["image"] == "reg.azurecr.io/opportune-training:1"
    assert environment["inferenceConfig"]["scoringRoute"] == {"path": "/score", "port": 5001}
    deployment = arm.held["onlineEndpoints/opp-1/deployments/blue"]
    assert deployment["location"] == "northeurope"
    assert deployment["properties"]["instanceType"] == "Standard_F4s_v2"
    assert deployment["properties"]["environmentVariables"] == {
        "OPPORTUNE_SERVICE": "faq",
        "OPPORTUNE_CLOUD": "azure",
        "OPPORTUNE_SERVE_STORE": "azure-blob:data",
        "OPPORTUNE_AZURE_STORAGE_ACCOUNT": "store",
    }
    assert "model" not in deployment["properties"]
    assert arm.held["onlineEndpoints/opp-1"]["properties"]["traffic"] == {"blue": 100}


def test_an_endpoint_of_somebody_else_keeps_everything_but_gets_its_traffic(arm: Arm) -> None:
    endpoint = {
        "location": "westeurope",
        "tags": {"team": "a"},
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {"id-1": {"clientId": "c"}}},
        "properties": {"authMode": "Key", "publicNetworkAccess": "Disabled", "provisioningState": "Succeeded"},
    }
    arm.held["onlineEndpoints/opp-1"] = endpoint
    arm.held["onlineEndpoints/opp-1/deployments/green"] = {
        "name": "green",
        "properties": {"provisioningState": "Succeeded"},
    }
    made = setup(arm)
    assert "takes no traffic yet" in made.standing().reason
    made.create()
    assert arm.puts == ["onlineEndpoints/opp-1"]
    written = arm.held["onlineEndpoints/opp-1"]
    assert (written["location"], written["tags"]) == ("westeurope", {"team": "a"})
    assert written["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {"id-1": {}}}
    assert written["properties"]["publicNetworkAccess"] == "Disabled"
    assert written["properties"]["authMode"] == "Key"
    assert written["properties"]["traffic"] == {"green": 100}
    standing = made.standing()
    assert standing.ready
    assert "OPPORTUNE_SERVE_STORE=azure-blob:data" in standing.lacks


def test_an_identity_of_the_deployment_is_given_to_an_endpoint_that_is_made(arm: Arm) -> None:
    made = setup(arm, Settings(azureml_endpoint="opp-1", azureml_image="i", azureml_serve_identity="/subs/1/id"))
    made.create()
    identity = arm.held["onlineEndpoints/opp-1"]["identity"]
    assert identity == {"type": "UserAssigned", "userAssignedIdentities": {"/subs/1/id": {}}}


def test_without_an_image_it_says_what_to_set_and_makes_nothing(arm: Arm) -> None:
    with pytest.raises(ConfigurationError, match="OPPORTUNE_AZUREML_IMAGE is not set"):
        setup(arm, Settings(azureml_endpoint="opp-1")).create()
    assert arm.puts == []


@pytest.mark.parametrize(
    ("endpoint", "deployment", "failed", "says"),
    [
        ("Creating", None, False, "Azure makes the endpoint"),
        ("Failed", None, True, "az ml online-endpoint delete -n opp-1 -g opportune -w opportune"),
        ("Succeeded", None, False, "it has no deployment yet"),
        ("Succeeded", "Creating", False, "Azure starts an instance and pulls the image"),
        ("Succeeded", "Failed", True, "az ml online-deployment get-logs -e opp-1 -n blue"),
    ],
)
def test_each_state_says_what_is_waited_for_or_what_to_do(
    endpoint: str, deployment: str | None, failed: bool, says: str, arm: Arm
) -> None:
    arm.held["onlineEndpoints/opp-1"] = {"properties": {"provisioningState": endpoint}}
    if deployment:
        held = {"name": "blue", "properties": {"provisioningState": deployment}}
        arm.held["onlineEndpoints/opp-1/deployments/blue"] = held
    standing = setup(arm).standing()
    assert (standing.ready, standing.failed) == (False, failed)
    assert says in standing.reason
