"""An Azure ML managed online endpoint as its owner runs it. What it serves is its containers' to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shared.adapters.answers import understood
from shared.adapters.azure.workspace import Workspace
from shared.settings import Settings
from shared.values import HostState

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_BUSY: Final = frozenset({"Creating", "Updating", "Deleting", "Scaling"})
#: the states in which a deployment does not answer
_BROKEN: Final = frozenset({"Failed", "Canceled", "Deleting", "gone"})


class AzureMLEndpoint:
    """The management side of one endpoint, whatever its deployments are called."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings = settings
        self._workspace = Workspace(settings, credential)
        self._endpoint = f"onlineEndpoints/{settings.azureml_endpoint}"
        self._what = f"Azure ML {self._endpoint}"

    def state(self) -> HostState:
        """Whether it can answer, and where it is asked; its version is not known here."""
        endpoint = self._workspace.get(self._endpoint)
        if endpoint is None:
            url = self._settings.azure_endpoint_url
            return HostState(None, url, healthy=False, reason=f"{self._what} does not exist")
        with understood(self._what):
            return self._told(endpoint["properties"])

    def _told(self, properties: dict[str, Any]) -> HostState:
        scoring = properties.get("scoringUri")
        url = self._settings.azure_endpoint_url or (f"azureml:{scoring}" if scoring else "")
        answer = self._workspace.call("GET", f"{self._endpoint}/deployments")
        deployments = {str(found["name"]): found.get("properties") or {} for found in answer.get("value") or []}
        updating = any(one.get("provisioningState") in _BUSY for one in (properties, *deployments.values()))
        traffic = {name: share for name, share in (properties.get("traffic") or {}).items() if share > 0}
        if not traffic:
            why = f"no deployment of {self._what} takes traffic"
            return HostState(None, url, healthy=False, updating=updating, reason=why)
        largest = max(traffic, key=lambda name: traffic[name])
        state = (deployments.get(largest) or {}).get("provisioningState", "gone")
        why = "" if url else f"{self._what} has no scoring address yet"
        if state in _BROKEN:
            why = f"Azure ML deployment {largest} is {state}"
        return HostState(None, url, healthy=not why, updating=updating, reason=why)
