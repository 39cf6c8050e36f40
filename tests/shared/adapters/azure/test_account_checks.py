"""What `doctor` looks at in an Azure resource group; what is missing says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from shared.adapters.azure.account_checks import AzureAccount
from shared.adapters.azure.credential import StaticToken
from shared.errors import ConfigurationError, NotFoundError
from shared.settings import Settings


def account(resources: dict[str, Any], groups: list[dict[str, Any]] | None = None) -> AzureAccount:
    made = AzureAccount(Settings(), StaticToken("t"))
    workspace: Any = made._workspace
    workspace.get = resources.get
    workspace.group = lambda resource, _: {"value": [{"properties": one} for one in groups or []]}
    setup: Any = made._setup
    setup._workspace = workspace
    return made


def test_the_environment_is_looked_at_and_its_image_named() -> None:
    key = "environments/opportune-training/versions/1"
    assert "r.io/x:1" in account({key: {"properties": {"image": "r.io/x:1"}}}).image()
    with pytest.raises(NotFoundError, match="opportune release MODEL --first"):
        account({}).image()


def test_the_compute_must_be_there_and_be_what_its_price_is_of() -> None:
    def compute(size: str, most: int) -> dict[str, Any]:
        details = {"vmSize": size, "scaleSettings": {"maxNodeCount": most}}
        return {"computes/gpu": {"properties": {"provisioningState": "Succeeded", "properties": details}}}

    assert "at most 1 of STANDARD_NC4AS_T4_V3" in account(compute("STANDARD_NC4AS_T4_V3", 1)).compute()
    with pytest.raises(ConfigurationError, match=r"OPPORTUNE_AZUREML_INSTANCE_TYPE is 'Standard_NC4as_T4_v3'.*ND96"):
        account(compute("Standard_ND96", 1)).compute()
    with pytest.raises(NotFoundError, match="at most 0 nodes"):
        account(compute("Standard_NC4as_T4_v3", 0)).compute()
    with pytest.raises(NotFoundError, match="compute gpu does not exist"):
        account({}).compute()


def test_alarms_need_a_receiver() -> None:
    assert account({}, [{"enabled": True, "emailReceivers": [{}]}]).alarms() == "alarms reach 1 receiver"
    with pytest.raises(NotFoundError, match="give alarmEmail"):
        account({}, [{"enabled": True, "emailReceivers": []}]).alarms()
    with pytest.raises(NotFoundError, match="no action group"):
        account({}).alarms()
