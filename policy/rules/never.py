"""Never retrain: the first trivial baseline, which every policy has to beat."""

from __future__ import annotations

from policy.base import Rule
from policy.history import History


class Never(Rule):
    """Holds for ever."""

    name = "never"

    def fires(self, history: History) -> bool:
        """No."""
        return False
