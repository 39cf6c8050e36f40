"""Fixed-interval retraining, the cron job most people have (the source paper: every 15 minutes)."""

from __future__ import annotations

import math

from policy.base import Rule, last_started
from policy.history import History


class Static(Rule):
    """Retrain every `every_minutes`, or every `every_slots` decision steps; the first one after one interval."""

    name = "static"

    def __init__(self, *, every_minutes: float = 15.0, every_slots: int | None = None) -> None:
        super().__init__()
        if every_minutes <= 0 or (every_slots is not None and every_slots < 1):
            raise ValueError("static retrains every > 0 minutes or every >= 1 slots")
        self._every_minutes = every_minutes
        self._every_slots = every_slots

    def fires(self, history: History) -> bool:
        """Whether the interval has passed since the last start. An interval between two steps waits for the later."""
        slots = self._every_slots or max(1, math.ceil(self._every_minutes / history.step_minutes - 1e-9))
        return history.t - last_started(history) >= slots
