"""CUSUM (Page, 1954): add up the drops below the reference, less a slack, never below zero."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from policy.base import Rule, quality_drops
from policy.history import Floats, History


def cusum(drops: Floats) -> float:
    """Last value of S_t = max(0, S_{t-1} + drop_t), S_{-1} = 0."""
    total = np.cumsum(drops)
    return float(total[-1] - min(0.0, float(total.min()))) if len(total) else 0.0


class Cusum(Rule):
    """Fires when the sum passes `limit`; the reference is the mean of the first `window` measurements."""

    name = "cusum"
    defaults: ClassVar[dict[str, float]] = {"limit": 1.0, "slack": 0.01, "window": 4}

    def fires(self, history: History) -> bool:
        """Whether the sum over the serving model's life passes the limit."""
        p = self.parameters(history)
        drops = quality_drops(history, int(p["window"]))
        if not len(drops):
            return False
        return cusum(drops - p["slack"]) > p["limit"]
