"""Every alert's runbook is a section of docs/operations.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.dashboards.rules import ALERTS, Alert

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.alert)
def test_the_runbook_of_an_alert_exists(alert: Alert) -> None:
    sections = re.findall(r"^#+ (.+)$", DOCUMENT.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in sections}
    assert alert.runbook in anchors
