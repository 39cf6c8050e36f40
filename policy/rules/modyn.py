"""Modyn's cost-aware trigger: integrate the excess errors of a stale model over time, compare with training.

Per step: new = max(0, misclassified - (1 - expected accuracy) n); cum += current * dt + new * dt / 2; current += new;
fire when k * cum reaches the training's cost; start over after a retrain. Counts are per request (n = 1 a step, as
quality is already a mean over requests). The training time, which the original forecasts by ridge regression on the
number of unseen samples, is known here (`train_hours`) and is priced, so that both sides are dollars.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from policy.base import Rule, quality_drops
from policy.history import History


class Modyn(Rule):
    """Fires when `k` times the integrated excess error is worth one retrain at today's price."""

    name = "modyn"
    defaults: ClassVar[dict[str, float]] = {"k": 0.1, "window": 4}

    def fires(self, history: History) -> bool:
        """Whether the integral has reached the cost."""
        p = self.parameters(history)
        drops = quality_drops(history, int(p["window"]))
        if not len(drops):
            return False
        new = np.maximum(0.0, drops)
        current = np.cumsum(new) - new
        cumulated = float((current + new / 2.0).sum())
        step_value = history.value_usd_per_quality_hour * history.step_minutes / 60.0
        return p["k"] * cumulated * step_value >= float(history.retrain_cost_usd().min())
