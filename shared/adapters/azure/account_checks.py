"""What of an Azure resource group a deployment needs and no port asks for: image, compute, alarms. Reads only.

Each returns words, or raises what is wrong and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.adapters.answers import understood
from shared.adapters.azure.endpoint_setup import AzureMLSetup
from shared.adapters.azure.workspace import Workspace
from shared.errors import ConfigurationError, NotFoundError
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_RECEIVERS: Final = (
    "emailReceivers", "smsReceivers", "webhookReceivers", "armRoleReceivers", "azureAppPushReceivers",
    "azureFunctionReceivers", "logicAppReceivers", "eventHubReceivers", "voiceReceivers",
)  # fmt: skip


class AzureAccount:
    """The resource group that the settings name."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings = settings
        self._workspace = Workspace(settings, credential)
        self._setup = AzureMLSetup(settings, credential)

    def image(self) -> str:
        """The environment that training and serving run in, and its image's name; the registry itself is not asked."""
        name = self._settings.azureml_environment
        image = self._setup.environment_image()
        if image is None:
            raise NotFoundError(
                f"Azure ML environment {name} does not exist; `opportune deploy azure` builds the image, and "
                "`opportune release MODEL --first` makes the environment of it"
            )
        return f"environment {name} is of {image or 'an image of its own build'}; that image itself is not checked"

    def compute(self) -> str:
        """The machines that train: whether there may be one, and whether their price is the one reckoned with."""
        cfg = self._settings
        found = self._workspace.get(f"computes/{cfg.azureml_compute}")
        if found is None:
            raise NotFoundError(
                f"Azure ML compute {cfg.azureml_compute} does not exist; `opportune deploy azure` makes it"
            )
        with understood(f"Azure ML compute {cfg.azureml_compute}"):
            state = found["properties"].get("provisioningState", "Succeeded")
            details = found["properties"].get("properties") or {}
            size = str(details.get("vmSize") or "")
            most = (details.get("scaleSettings") or {}).get("maxNodeCount", 1)
        if state == "Failed" or most < 1:
            raise NotFoundError(f"Azure ML compute {cfg.azureml_compute} is {state} with at most {most} nodes")
        if size and size.lower() != cfg.azureml_instance_type.lower():
            raise ConfigurationError(
                "OPPORTUNE_AZUREML_INSTANCE_TYPE",
                cfg.azureml_instance_type,
                f"{size}, which {cfg.azureml_compute} is of",
            )
        return f"{cfg.azureml_compute} has at most {most} of {size or 'its size'}; the quota is not checked"

    def alarms(self) -> str:
        """Whether an alarm would reach somebody."""
        listed = self._workspace.group("providers/Microsoft.Insights/actionGroups", "2023-01-01")
        with understood("Azure Monitor action groups"):
            groups = [one.get("properties") or {} for one in listed.get("value") or []]
        if not groups:
            raise NotFoundError("there is no action group; `opportune deploy azure` makes it")
        told = sum(len(one.get(kind) or []) for one in groups if one.get("enabled", True) for kind in _RECEIVERS)
        if not told:
            raise NotFoundError("the alarms reach nobody; give alarmEmail to `opportune deploy azure`")
        return f"alarms reach {told} receiver{'s' * (told > 1)}"
