"""ModelHost on an Azure ML managed online endpoint."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.answers import understood
from shared.adapters.azure.workspace import Workspace
from shared.errors import RefusedError
from shared.settings import Settings
from shared.values import HostState

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_DEPLOYMENT_NAME: Final = re.compile(r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$")
_TAG: Final = "opportune-version"
_BUSY: Final = frozenset({"Creating", "Updating", "Deleting", "Scaling"})
#: of an endpoint's properties, what its owner sets
_WRITABLE: Final = frozenset(
    {"authMode", "compute", "description", "mirrorTraffic", "properties", "publicNetworkAccess", "traffic"}
)


class AzureMLHost:
    """ModelHost on one managed online endpoint: a deployment per version, traffic moves when it is ready."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings = settings
        self._workspace = Workspace(settings, credential)
        self._endpoint = f"onlineEndpoints/{settings.azureml_endpoint}"

    def _deployment(self, model_version: str) -> str:
        if _DEPLOYMENT_NAME.match(model_version):
            return model_version
        return f"v{hashlib.sha256(model_version.encode()).hexdigest()[:24]}"

    def deploy(self, model_version: str, artifact_uri: str) -> None:
        """Take the next step towards `model_version`: create its deployment, or move the traffic once it is ready."""
        with understood(f"Azure ML {self._endpoint}"):
            self._deploy(model_version, artifact_uri)

    def _deploy(self, model_version: str, artifact_uri: str) -> None:
        name = self._deployment(model_version)
        resource = f"{self._endpoint}/deployments/{name}"
        found = self._workspace.get(resource)
        if found is None:
            self._create(resource, model_version, artifact_uri)
            found = self._workspace.get(resource) or {"properties": {}}
        state = found["properties"].get("provisioningState", "Creating")
        if state in ("Failed", "Canceled"):
            why = f"deployment {name} of version {model_version} is {state}; the workspace's log of it says why"
            raise RefusedError(f"Azure ML {self._endpoint}", why)
        if state != "Succeeded":
            return
        endpoint = self._workspace.call("GET", self._endpoint)
        if endpoint["properties"].get("traffic") == {name: 100}:
            return
        # A PUT without a property resets it: what was read is written back, but for what only the service may say.
        properties = {k: v for k, v in endpoint["properties"].items() if k in _WRITABLE and v is not None}
        body = {k: endpoint[k] for k in ("location", "tags", "kind", "sku") if endpoint.get(k)}
        identity = endpoint.get("identity") or {"type": "SystemAssigned"}
        if given := identity.get("userAssignedIdentities"):
            identity = {"type": identity["type"], "userAssignedIdentities": {key: {} for key in given}}
        else:
            identity = {"type": identity["type"]}
        body |= {"identity": identity, "properties": {"authMode": "AADToken", **properties, "traffic": {name: 100}}}
        self._workspace.call("PUT", self._endpoint, {"location": "", **body})

    def _create(self, resource: str, model_version: str, artifact_uri: str) -> None:
        cfg = self._settings
        model = f"models/{cfg.azureml_endpoint}/versions/{model_version}"
        if (known := self._workspace.get(model)) is not None:
            _ = known["properties"]  # an answer without them says nothing, least of all that there is one
        else:
            self._workspace.call("PUT", model, {"properties": {"modelType": "custom_model", "modelUri": artifact_uri}})
        environment, _, version = cfg.azureml_environment.partition(":")
        endpoint = self._workspace.call("GET", self._endpoint)
        self._workspace.call(
            "PUT",
            resource,
            {
                "location": endpoint.get("location", ""),
                "sku": {"name": "Default", "capacity": 1},
                "tags": {_TAG: model_version},
                "properties": {
                    "endpointComputeType": "Managed",
                    "instanceType": cfg.azureml_serve_instance_type,
                    "model": f"{self._workspace.path}/{model}",
                    "environmentId": f"{self._workspace.path}/environments/{environment}/versions/{version or '1'}",
                },
            },
        )

    def state(self) -> HostState:
        """The version of the deployment with the largest share of the traffic."""
        endpoint = self._workspace.get(self._endpoint)
        if endpoint is None:
            return HostState(None, self._settings.azure_endpoint_url)
        with understood(f"Azure ML {self._endpoint}"):
            return self._told(endpoint["properties"])

    def _told(self, properties: dict[str, Any]) -> HostState:
        scoring = properties.get("scoringUri")
        url = self._settings.azure_endpoint_url or (f"azureml:{scoring}" if scoring else "")
        deployments = {str(found["name"]): found for found in self._deployments()}
        going_on = [properties, *(found.get("properties") or {} for found in deployments.values())]
        updating = any(one.get("provisioningState") in _BUSY for one in going_on)
        traffic = {name: share for name, share in (properties.get("traffic") or {}).items() if share > 0}
        if not traffic:
            return HostState(None, url, healthy=False, updating=updating, reason="no deployment takes traffic")
        largest = max(traffic, key=lambda name: traffic[name])
        serving = deployments.get(largest) or {}
        state = (serving.get("properties") or {}).get("provisioningState", "gone")
        why = "" if url else f"Azure ML {self._endpoint} has no scoring address yet"
        if state in ("Failed", "Canceled", "Deleting", "gone"):
            why = f"Azure ML deployment {largest} is {state}"
        version = str((serving.get("tags") or {}).get(_TAG, largest))
        return HostState(version, url, healthy=not why, updating=updating, reason=why)

    def _deployments(self) -> list[dict[str, Any]]:
        return list(self._workspace.call("GET", f"{self._endpoint}/deployments").get("value") or [])
