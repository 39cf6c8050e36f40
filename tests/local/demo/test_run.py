"""What `opportune demo --json` prints."""

from __future__ import annotations

from pathlib import Path

from local.demo.results import Arm, Prices
from local.demo.run import DemoResult


def test_the_json_has_the_promised_keys_also_when_nothing_was_measured() -> None:
    arm = Arm(
        name="adaptive", policy="ppo", started_s=0.0, wall_s=1.0, speed=20.0, slot_s=3.0, minutes=10.0, outcomes=(),
        decisions=(), jobs=(), swaps=(), drifts_s=(), prices=Prices({"aws": 1.0, "azure": 1.0}, 6.0), traces={},
    )  # fmt: skip
    found = DemoResult((arm,), Path("report.html")).as_json()
    assert set(found) == {"arms", "report", "against", "metrics_path"}
    assert set(found["arms"]) == {"adaptive"} and found["against"] == {} and found["report"] == "report.html"
