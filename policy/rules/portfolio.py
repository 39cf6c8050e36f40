"""The tuned rule: per cost ratio the rule that did best on the training traces. The live service falls back to it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from policy.base import cost_ratio
from policy.history import Decider, History
from policy.rules.tuned import best_rule_for


class Portfolio:
    """Hands each decision to the best rule of `among` at this history's cost ratio; `make` builds it by name."""

    name = "rule"

    def __init__(self, make: Callable[[str], Decider], among: Collection[str]) -> None:
        self._make, self._among = make, among
        self._rules: dict[str, Decider] = {}
        self._seed = 0

    def reset(self, seed: int) -> None:
        """Forget everything."""
        self._rules.clear()
        self._seed = seed

    def decide(self, history: History) -> int:
        """The chosen rule's action."""
        name = best_rule_for(cost_ratio(history), self._among)
        if name not in self._rules:
            self._rules[name] = self._make(name)
            self._rules[name].reset(self._seed)
        return self._rules[name].decide(history)
