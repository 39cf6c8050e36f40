"""The tuned rule: per cost ratio the rule that did best on the training traces. The live service falls back to it."""

from __future__ import annotations

from policy.base import cost_ratio
from policy.history import Decider, History
from policy.rules.registry import make
from policy.rules.tuned import best_rule_for


class Portfolio:
    """Hands each decision to the rule that is best at this history's cost ratio."""

    name = "rule"

    def __init__(self) -> None:
        self._rules: dict[str, Decider] = {}
        self._seed = 0

    def reset(self, seed: int) -> None:
        """Forget everything."""
        self._rules.clear()
        self._seed = seed

    def decide(self, history: History) -> int:
        """The chosen rule's action."""
        name = best_rule_for(cost_ratio(history))
        if name not in self._rules:
            self._rules[name] = make(name)
            self._rules[name].reset(self._seed)
        return self._rules[name].decide(history)
