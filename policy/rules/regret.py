"""Cumulative regret (ski rental): retrain once the quality lost since the last retrain has cost as much as one."""

from __future__ import annotations

from typing import ClassVar

from policy.base import Rule, quality_drops
from policy.history import History


class Regret(Rule):
    """Fires when the value of quality lost since the serving model was new reaches `k` retrains at today's price.

    Losses and gains of measurement noise cancel, because the sum is signed; the reference is the mean of the first
    `window` measurements.
    """

    name = "regret"
    defaults: ClassVar[dict[str, float]] = {"k": 1.0, "window": 4}

    def fires(self, history: History) -> bool:
        """Whether the accumulated dollars reach k times today's cheapest retrain."""
        p = self.parameters(history)
        drops = quality_drops(history, int(p["window"]))
        if not len(drops):
            return False
        step_value = history.value_usd_per_quality_hour * history.step_minutes / 60.0
        return float(drops.sum()) * step_value >= p["k"] * float(history.retrain_cost_usd().min())
