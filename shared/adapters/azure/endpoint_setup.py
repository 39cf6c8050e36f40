"""Making an Azure ML managed online endpoint with one deployment, once; what serves on it is the release's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shared.adapters.answers import understood
from shared.adapters.azure.workspace import Workspace
from shared.containers import lacking, serving_environment
from shared.errors import ConfigurationError
from shared.settings import Settings
from shared.values import Standing

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

#: the deployment's name does not change with the model
DEPLOYMENT: Final = "blue"
_FAILED: Final = frozenset({"Failed", "Canceled"})
#: of an endpoint, what its owner sets; a PUT without one of these resets it
_WRITABLE: Final = frozenset(
    {"authMode", "compute", "description", "mirrorTraffic", "properties", "publicNetworkAccess"}
)
#: where the image answers: health, readiness and scoring (training_containers/azureml/environment.yml says the same)
_PORT: Final = 5001


class AzureMLSetup:
    """One endpoint: is it there, and making it step by step."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings = settings
        self._workspace = Workspace(settings, credential)
        self._resource = f"onlineEndpoints/{settings.azureml_endpoint}"

    @property
    def name(self) -> str:
        """What it is called."""
        return f"Azure ML endpoint {self._settings.azureml_endpoint}"

    def standing(self) -> Standing:
        """The endpoint and the deployment that takes its traffic, whatever that is called and whoever made it."""
        endpoint = self._workspace.get(self._resource)
        if endpoint is None:
            return Standing("")
        with understood(self.name):
            deployments = self._deployments()
            properties = endpoint["properties"]
            state = str(properties.get("provisioningState", "Creating"))
            if state in _FAILED:
                return Standing(
                    state, failed=True, reason=f"its activity log says why; mend it, then: {self._delete()}"
                )
            if state != "Succeeded":
                return Standing(state, reason="Azure makes the endpoint; usually a minute")
            if not deployments:
                return Standing(state, reason="it has no deployment yet")
            name, found = self._largest(properties, deployments)
            told = str(found["properties"].get("provisioningState", "Creating"))
            lacks = lacking(dict(found["properties"].get("environmentVariables") or {}), self._settings, "azure")
            if told in _FAILED:
                why = f"deployment {name} is {told}: {self._logs(name)} says why; mend it, then: {self._delete(name)}"
                return Standing(told, failed=True, reason=why)
            if told != "Succeeded":
                why = f"deployment {name}: Azure starts an instance and pulls the image; usually 5 to 15 minutes"
                return Standing(told, reason=why)
            traffic = properties.get("traffic") or {}
            if not any(traffic.values()):
                return Standing(told, reason=f"deployment {name} takes no traffic yet", lacks=lacks)
            return Standing(told, ready=True, lacks=lacks)

    def create(self) -> None:
        """Take the next step: environment, endpoint, deployment, traffic. Nothing of somebody else's is changed.

        Raises:
            ConfigurationError: the environment is not there, and no image to make it of is named.
            RefusedError, CapacityError, UnavailableError: in Azure's own words.
        """
        with understood(self.name):
            endpoint = self._workspace.get(self._resource)
            if endpoint is None:
                self._make_environment()
                self._workspace.call("PUT", self._resource, self._new_endpoint())
                return
            if endpoint["properties"].get("provisioningState") != "Succeeded":
                return
            deployments = self._deployments()
            if not deployments:
                self._make_environment()
                body = self._new_deployment(str(endpoint.get("location") or self._settings.azureml_region))
                self._workspace.call("PUT", f"{self._resource}/deployments/{DEPLOYMENT}", body)
                return
            properties = endpoint["properties"]
            name, found = self._largest(properties, deployments)
            if found["properties"].get("provisioningState") == "Succeeded" and not any(
                (properties.get("traffic") or {}).values()
            ):
                self._workspace.call("PUT", self._resource, _with_traffic(endpoint, {name: 100}))

    def _deployments(self) -> dict[str, dict[str, Any]]:
        listed = self._workspace.call("GET", f"{self._resource}/deployments").get("value") or []
        return {str(one["name"]): one for one in listed}

    def _largest(self, properties: dict[str, Any], deployments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        traffic = properties.get("traffic") or {}
        name = max(sorted(deployments), key=lambda name: traffic.get(name, 0))
        return name, deployments[name]

    def _new_endpoint(self) -> dict[str, Any]:
        cfg = self._settings
        identity: dict[str, Any] = {"type": "SystemAssigned"}
        if cfg.azureml_serve_identity:
            identity = {"type": "UserAssigned", "userAssignedIdentities": {cfg.azureml_serve_identity: {}}}
        return {
            "location": cfg.azureml_region,
            "kind": "Managed",
            "identity": identity,
            "tags": {"opportune-service": cfg.service},
            "properties": {"authMode": "AADToken"},
        }

    def _new_deployment(self, location: str) -> dict[str, Any]:
        cfg = self._settings
        return {
            "location": location,
            "kind": "Managed",
            "sku": {"name": "Default", "capacity": 1},
            "tags": {"opportune-service": cfg.service},
            "properties": {
                "endpointComputeType": "Managed",
                "instanceType": cfg.azureml_serve_instance_type,
                "environmentId": f"{self._workspace.path}/{self._environment()}",
                "environmentVariables": serving_environment(cfg, "azure"),
                "requestSettings": {"requestTimeout": "PT10S", "maxConcurrentRequestsPerInstance": 64},
                # a container that fetches its first version has until then to be alive
                "livenessProbe": {"initialDelay": "PT600S", "period": "PT10S", "failureThreshold": 30},
                "readinessProbe": {"initialDelay": "PT10S", "period": "PT10S", "failureThreshold": 90},
            },
        }

    def _environment(self) -> str:
        name, _, version = self._settings.azureml_environment.partition(":")
        return f"environments/{name}/versions/{version or '1'}"

    def environment_image(self) -> str | None:
        """The image of the environment; None where there is no such environment."""
        found = self._workspace.get(self._environment())
        if found is None:
            return None
        with understood(f"Azure ML {self._environment()}"):
            return str(found["properties"].get("image") or "")

    def _make_environment(self) -> None:
        if self.environment_image() is not None:
            return
        image = self._settings.azureml_image
        if not image:
            raise ConfigurationError(
                "OPPORTUNE_AZUREML_IMAGE",
                None,
                "the image in a registry, such as opportune.azurecr.io/opportune-training:1 (`opportune deploy azure` "
                f"builds it); Azure ML environment {self._settings.azureml_environment} is not there and is made of it",
            )
        routes = {
            name: {"path": path, "port": _PORT}
            for name, path in (
                ("livenessRoute", "/healthz"),
                ("readinessRoute", "/healthz"),
                ("scoringRoute", "/score"),
            )
        }
        body = {"properties": {"image": image, "osType": "Linux", "inferenceConfig": routes}}
        self._workspace.call("PUT", self._environment(), body)

    def _delete(self, deployment: str = "") -> str:
        cfg = self._settings
        where = f"-g {cfg.azureml_resource_group} -w {cfg.azureml_workspace}"
        if not deployment:
            return f"az ml online-endpoint delete -n {cfg.azureml_endpoint} {where}, and repeat"
        return f"az ml online-deployment delete -e {cfg.azureml_endpoint} -n {deployment} {where}, and repeat"

    def _logs(self, deployment: str) -> str:
        cfg = self._settings
        return (
            f"az ml online-deployment get-logs -e {cfg.azureml_endpoint} -n {deployment} "
            f"-g {cfg.azureml_resource_group} -w {cfg.azureml_workspace}"
        )


def _with_traffic(endpoint: dict[str, Any], traffic: dict[str, int]) -> dict[str, Any]:
    """The endpoint as it was read, with its traffic: a PUT without a property resets it."""
    properties = {
        name: value for name, value in endpoint["properties"].items() if name in _WRITABLE and value is not None
    }
    body = {name: endpoint[name] for name in ("location", "tags", "kind", "sku") if endpoint.get(name)}
    identity = endpoint.get("identity") or {"type": "SystemAssigned"}
    given = identity.get("userAssignedIdentities")
    identity = {"type": identity["type"]} | ({"userAssignedIdentities": {key: {} for key in given}} if given else {})
    return {
        "location": "",
        **body,
        "identity": identity,
        "properties": {"authMode": "AADToken", **properties, "traffic": traffic},
    }
