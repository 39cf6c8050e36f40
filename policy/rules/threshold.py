"""Threshold rule: retrain when the smoothed quality has dropped by so much since the serving model was new."""

from __future__ import annotations

from typing import ClassVar

from policy.base import Rule, reference_quality, serving_quality, smoothed_quality
from policy.history import History


class Threshold(Rule):
    """Fires when the mean of the last `window` measurements lies `drop` below that of the first `window`."""

    name = "threshold"
    defaults: ClassVar[dict[str, float]] = {"drop": 0.05, "window": 4}

    def fires(self, history: History) -> bool:
        """Whether the drop is reached; needs two full windows."""
        p = self.parameters(history)
        window = int(p["window"])
        measured = serving_quality(history)
        if len(measured) < 2 * window:
            return False
        return reference_quality(measured, window) - smoothed_quality(measured, window) > p["drop"]
