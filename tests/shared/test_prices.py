"""What a machine costs: the shipped table, its limits, and what the settings make of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from functions.retraining.job_message import training_job
from shared.errors import ConfigurationError
from shared.prices import TABLE, list_price, source, spot_share
from shared.settings import Settings


@pytest.mark.parametrize(
    ("cloud", "kind", "region", "usd"),
    [
        ("aws", "ml.g4dn.xlarge", "us-east-1", 0.7364),
        ("aws", "ml.g5.xlarge", "us-east-1", 1.4084),
        ("aws", "ml.p3.2xlarge", "us-east-1", 3.825),
        ("aws", "ml.c5.xlarge", "us-east-1", 0.204),
        ("aws", "ml.g4dn.xlarge", "eu-west-1", 0.8218),
        ("azure", "Standard_NC4as_T4_v3", "eastus", 0.526),
        ("azure", "Standard_F4s_v2", "westeurope", 0.194),
    ],
)
def test_the_prices_of_well_known_machines(cloud, kind: str, region: str, usd: float) -> None:
    assert list_price(cloud, kind, region) == pytest.approx(usd, abs=1e-4)


def test_what_is_not_known_is_none_and_never_another_regions_price() -> None:
    assert list_price("aws", "ml.c6i.xlarge", "eu-west-1") is None
    assert list_price("aws", "ml.g4dn.xlarge", "mars-1") is None
    assert list_price("azure", "Standard_Nothing", "westeurope") is None
    assert spot_share("ml.c6i.xlarge", "eu-west-1") == 1.0


def test_a_region_may_be_written_as_azure_shows_it() -> None:
    assert list_price("azure", "Standard_NC4as_T4_v3", "West Europe") == 0.658


def test_the_table_is_small_and_says_of_which_day_it_is() -> None:
    assert TABLE.stat().st_size < 100_000
    assert "2026" in source("aws")
    assert "2026" in source("azure")
    rows = [row for part in msgspec.json.decode(TABLE.read_bytes()).values() for row in part["usd_per_hour"].values()]
    assert all(0.01 < price < 200 for row in rows for price in row if price is not None)


def test_a_spot_machine_is_expected_to_cost_less_and_bounded_by_its_list_price() -> None:
    settings = Settings(aws_region="us-east-1")
    assert settings.price_usd_per_hour("aws") == pytest.approx(0.7364 * 0.36)
    assert settings.list_price_usd_per_hour("aws") == pytest.approx(0.7364)
    assert msgspec.structs.replace(settings, sagemaker_spot=False).price_usd_per_hour("aws") == pytest.approx(0.7364)


def test_a_large_machine_runs_for_less_time_under_the_same_ceiling(a_decision) -> None:
    decision, usd = a_decision(), 10.0
    for kind, price in (("ml.g4dn.xlarge", 0.7364), ("ml.p5.48xlarge", 63.296)):
        cfg = Settings(aws_region="us-east-1", sagemaker_instance_type=kind, cost_ceiling_usd=usd)
        job = training_job(cfg, decision, "aws", "base")
        assert job.deadline_s == pytest.approx(min(3600.0, usd / price * 3600.0), rel=1e-4)


@pytest.mark.parametrize(
    ("cloud", "changed", "names"),
    [
        ("aws", {"sagemaker_instance_type": "ml.x9.huge"}, "OPPORTUNE_SAGEMAKER_INSTANCE_TYPE=ml.x9.huge in eu-west-1"),
        ("azure", {"azureml_region": "moon"}, "OPPORTUNE_AZUREML_INSTANCE_TYPE=Standard_NC4as_T4_v3 in moon"),
    ],
)
def test_a_machine_without_a_price_is_refused_until_one_is_set(cloud, changed: dict[str, Any], names: str) -> None:
    settings = Settings(**changed)
    with pytest.raises(ConfigurationError, match=f"OPPORTUNE_PRICE_USD_PER_HOUR_{cloud.upper()} is not set") as told:
        settings.price_usd_per_hour(cloud)
    assert names in str(told.value)
    given = msgspec.structs.replace(settings, **{f"price_usd_per_hour_{cloud}": 3.5})
    assert given.price_usd_per_hour(cloud) == given.list_price_usd_per_hour(cloud) == 3.5


def test_the_region_is_that_of_the_aws_tools_unless_it_is_said() -> None:
    assert Settings.from_env({"AWS_REGION": "us-east-1"}).aws_region == "us-east-1"
    assert Settings.from_env({"AWS_DEFAULT_REGION": "us-east-2"}).aws_region == "us-east-2"
    both = {"AWS_REGION": "us-east-1", "OPPORTUNE_AWS_REGION": "eu-north-1"}
    assert Settings.from_env(both).aws_region == "eu-north-1"
