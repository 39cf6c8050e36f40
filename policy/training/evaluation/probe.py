"""`ppo-probe`: the shipped network, which may buy a shadow probe before it decides.

A probe fine-tunes on a sample for a few minutes and scores the result and the serving model on fresh held-out pairs:
an estimate of what a retrain would gain now. It costs `PRICE_SHARE` of a retrain (a tenth of the data, the same
machine) and errs with an sd of `NOISE_SD` (a few hundred pairs and a model that saw less). It is bought only where the
network would retrain without being sure of it, and at most every `REST` steps; then the probe decides: retrain if the
gain, over a horizon of so many steps, is worth today's price. `python -m benchmarks.policy.probe` shows what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from policy.history import History
from policy.policies import OutOfDistributionError, Policy
from policy.training.simulator.trace import Trace

#: a number or an array of them
Values = Any
Truths = Any

PRICE_SHARE: Final = 0.1
NOISE_SD: Final = 0.03
REST: Final = 4
#: probabilities of retraining between which the network asks a probe, and the steps within which a measured gain must
#: pay the price: the best of the grid of `benchmarks.policy.probe`, for the network before the shipped one
UNSURE: Final = (0.5, 0.7)
HORIZON: Final = 20.0


def doubted(wish: Values, unsure: tuple[float, float] = UNSURE) -> Truths:
    """Where a network that would retrain with probability `wish` is not sure of it."""
    return (unsure[0] < wish) & (wish < unsure[1])


def pays(gain: Values, cost: Values, horizon: float = HORIZON) -> Truths:
    """Where a gain in quality, kept for `horizon` steps, is worth a retrain of `cost` (points of quality x steps)."""
    return gain * horizon >= cost


class ProbingPolicy:
    """One run of a network with probes. `measure(step, serving)` sells one estimate of the gain."""

    name = "ppo-probe"

    def __init__(self, policy: Policy, measure: Callable[[int, int], float]) -> None:
        self._policy = policy
        self._measure = measure
        self.probes: list[int] = []
        self.spent_usd = 0.0

    def reset(self, seed: int) -> None:
        """Forget the probes."""
        self._policy.reset(seed)
        self.probes.clear()
        self.spent_usd = 0.0

    def decide(self, history: History) -> int:
        """The network's action where it is sure, else what a probe says; the fall-back rule's where it is lost."""
        try:
            evaluation = self._policy.evaluate(history)
        except OutOfDistributionError:
            return self._policy.decide(history)
        wish = 1.0 - evaluation.probabilities[0]
        if not doubted(wish):
            return int(evaluation.action)
        if self.probes and history.t - self.probes[-1] < REST:
            return 0
        price = float(history.retrain_cost_usd().min())
        self.probes.append(history.t)
        self.spent_usd += PRICE_SHARE * price
        gain = self._measure(history.t, history.serving[0])
        step_value = history.value_usd_per_quality_hour * history.step_minutes / 60.0
        if not pays(gain, price / step_value):
            return 0
        return int(evaluation.action) or history.cheapest_action()


def seller_of(trace: Trace, seed: int) -> Callable[[int, int], float]:
    """Probes of a trace: the true gain of a model trained now over the serving one, with the probe's noise."""

    def measure(step: int, serving: int) -> float:
        noise = np.random.default_rng([seed, 7, step, serving]).normal(0.0, NOISE_SD)
        return float(trace.quality[step, step] - trace.quality[serving, step] + noise)

    return measure
