"""`opportune costs`: a month, from the table."""

from __future__ import annotations

import json

import pytest


def test_a_month_is_hours_times_list_prices(typed, monkeypatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("OPPORTUNE_AZUREML_REGION", "eastus")
    told = json.loads(typed("costs", "--retrains", "60", "--instances", "2", "--json").stdout)
    aws, azure = told["clouds"]["aws"], told["clouds"]["azure"]
    assert aws["serving"] == pytest.approx(0.204 * 730 * 2)
    assert aws["retraining"] == pytest.approx(30 * 0.25 * 0.7364 * 0.36)
    assert azure["serving"] == pytest.approx(0.169 * 730 * 2)
    assert azure["total"] == pytest.approx(azure["serving"] + azure["retraining"] + azure["control_plane"])


def test_what_is_not_known_is_said_and_not_counted_as_nothing(typed, monkeypatch) -> None:
    monkeypatch.setenv("OPPORTUNE_SAGEMAKER_SERVE_INSTANCE_TYPE", "ml.x9.huge")
    monkeypatch.setenv("OPPORTUNE_AZUREML_INSTANCE_TYPE", "Standard_New")
    told = json.loads(typed("costs", "--json").stdout)["clouds"]
    assert told["aws"]["total"] is None
    assert "no price is known of ml.x9.huge" in told["aws"]["says"]
    assert told["azure"]["retraining"] is None
    assert "OPPORTUNE_PRICE_USD_PER_HOUR_AZURE" in told["azure"]["says"]
    assert "not known" in typed("costs").stdout
