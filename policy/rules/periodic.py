"""Periodic retraining every `period` steps, chosen on the warm-up; a 2026 ranking puts it ahead of most."""

from __future__ import annotations

from typing import ClassVar

from policy.base import Rule, last_started
from policy.history import History


class Periodic(Rule):
    """Retrain every `period` steps; a period of 0 never retrains."""

    name = "periodic"
    defaults: ClassVar[dict[str, float]] = {"period": 48.0}

    def fires(self, history: History) -> bool:
        """Whether a period has passed since the last start."""
        period = self.parameters(history)["period"]
        return 0 < period <= history.t - last_started(history)
