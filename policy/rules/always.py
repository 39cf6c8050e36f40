"""Always retrain, as often as one job at a time allows: the second trivial baseline."""

from __future__ import annotations

from policy.base import Rule
from policy.history import History


class Always(Rule):
    """Starts the next job as soon as the last one is live."""

    name = "always"

    def fires(self, history: History) -> bool:
        """Yes; the environment never asks while a job is in flight."""
        return True
