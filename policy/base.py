"""Base class of retrain rules, with helpers: the serving model's measurements, and the cost ratio of a retrain.

Every rule is a function of the `History` alone (a fresh instance that is shown a long history decides as one that
went through it), so a function that wakes once a minute can use it. All rules place the job on the cloud that is
cheapest now; they differ in timing only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from policy.history import Floats, History
from policy.rules.tuned import parameters_for


def last_started(history: History) -> int:
    """Step at which the last retrain was started, 0 before the first."""
    return history.retrains[-1].started if history.retrains else 0


def cost_ratio(history: History) -> float:
    """Cheapest retrain in units of `one full point of quality for one step`, averaged over the past prices."""
    cheapest = float(np.min(history.price_usd_per_hour * history.train_hours, axis=1).mean())
    step_value = history.value_usd_per_quality_hour * history.step_minutes / 60.0
    return cheapest / step_value if step_value > 0 else float("inf")


def serving_quality(history: History) -> Floats:
    """Measured quality of the serving model since it went live, missing samples left out; may be empty."""
    since = history.quality[max(0, history.serving[1]) :]  # a live history may start after the model went live
    return since[np.isfinite(since)]


def reference_quality(measured: Floats, samples: int) -> float:
    """What the serving model was worth when it was new: the mean of its first measurements."""
    return float(measured[:samples].mean())


def quality_drops(history: History, window: int) -> Floats:
    """How far each measurement after the serving model's first `window` lies below their mean; empty before it."""
    measured = serving_quality(history)
    if len(measured) <= window:
        return measured[:0]
    return reference_quality(measured, window) - measured[window:]


def smoothed_quality(measured: Floats, samples: int) -> float:
    """The mean of the last measurements."""
    return float(measured[-samples:].mean())


class Rule(ABC):
    """A hand-written retrain rule. Parameters are explicit, or tuned per cost ratio on training traces."""

    name: ClassVar[str]
    #: the values used where nothing was tuned; their names are the parameters the rule accepts
    defaults: ClassVar[dict[str, float]] = {}

    def __init__(self, **parameters: float) -> None:
        unknown = sorted(set(parameters) - set(self.defaults))
        if unknown:
            raise TypeError(f"{self.name} has no parameter {', '.join(unknown)}; it has: {', '.join(self.defaults)}")
        self._explicit = parameters
        self.seed = 0

    def reset(self, seed: int) -> None:
        """Forget everything. Most rules keep nothing between steps but the seed."""
        self.seed = seed

    def decide(self, history: History) -> int:
        """0 hold, or a retrain on the cloud that is cheapest now."""
        if history.in_flight or not self.fires(history):
            return 0
        return history.cheapest_action()

    def parameters(self, history: History) -> dict[str, Any]:
        """Defaults, overruled by the tuned values of this history's cost ratio, overruled by explicit ones."""
        if len(self._explicit) == len(self.defaults):
            return self._explicit
        return {**self.defaults, **parameters_for(self.name, cost_ratio(history)), **self._explicit}

    @abstractmethod
    def fires(self, history: History) -> bool:
        """Whether to retrain now."""
