"""ModelHost on an Azure ML managed online endpoint."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from shared.adapters.azure.workspace import Workspace
from shared.errors import ModelError, UnavailableError
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_DEPLOYMENT_NAME: Final = re.compile(r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$")
_TAG: Final = "opportune-version"


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
        name = self._deployment(model_version)
        resource = f"{self._endpoint}/deployments/{name}"
        found = self._workspace.get(resource)
        if found is None:
            self._create(resource, model_version, artifact_uri)
            found = self._workspace.get(resource) or {"properties": {}}
        state = found["properties"].get("provisioningState", "Creating")
        if state in ("Failed", "Canceled"):
            raise ModelError(f"Azure ML deployment {name} of version {model_version} is {state}")
        if state != "Succeeded":
            return
        endpoint = self._workspace.call("GET", self._endpoint)
        if endpoint["properties"].get("traffic") == {name: 100}:
            return
        properties = {"authMode": endpoint["properties"].get("authMode", "AADToken"), "traffic": {name: 100}}
        self._workspace.call(
            "PUT",
            self._endpoint,
            {
                "location": endpoint.get("location", ""),
                "identity": endpoint.get("identity") or {"type": "SystemAssigned"},
                "properties": properties,
            },
        )

    def _create(self, resource: str, model_version: str, artifact_uri: str) -> None:
        cfg = self._settings
        model = f"models/{cfg.azureml_endpoint}/versions/{model_version}"
        if self._workspace.get(model) is None:
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

    def serving_version(self) -> str | None:
        """The version of the deployment that takes all traffic."""
        endpoint = self._workspace.get(self._endpoint)
        if endpoint is None:
            return None
        taking = [name for name, share in (endpoint["properties"].get("traffic") or {}).items() if share == 100]
        if not taking:
            return None
        found = self._workspace.call("GET", f"{self._endpoint}/deployments/{taking[0]}")
        return str((found.get("tags") or {}).get(_TAG, taking[0]))

    def endpoint_url(self) -> str:
        """The HTTP face in front of the endpoint, or the endpoint's own scoring address, which wants a token."""
        if self._settings.azure_endpoint_url:
            return self._settings.azure_endpoint_url
        scoring = self._workspace.call("GET", self._endpoint)["properties"].get("scoringUri")
        if not scoring:
            raise UnavailableError("Azure ML", f"{self._endpoint} has no scoring address yet")
        return f"azureml:{scoring}"
