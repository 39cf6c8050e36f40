"""The rule that decides retrainopt's table for us: what a retrain saves over a horizon, against today's price.

Retrain on n samples when weight * (loss now - loss of a fresh model on n samples) * horizon exceeds the price of n,
with the n of the largest margin. What a fresh model is worth, and the horizon, come from the history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

HORIZONS: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)


class Forecaster:
    """Fitted to the candidates of steps [0, until); sees only the serving model's loss afterwards."""

    def __init__(
        self,
        volumes: tuple[int, ...],
        weight: float,
        loss: Callable[[int, int, int], float],
        price: Callable[[int, int], float],
        until: int,
    ) -> None:
        self._weight, self._price = weight, price
        self._fresh = {n: float(np.mean([loss(step, n, step) for step in range(1, until)])) for n in volumes}

        def history_cost(horizon: float) -> float:
            serving, cost = (0, max(volumes)), 0.0
            for step in range(until):
                samples = self._choose(step, loss(*serving, step), horizon) if step else 0
                if samples:
                    cost += price(step, samples)
                    serving = (step, samples)
                cost += weight * loss(*serving, step)
            return cost

        costs = [history_cost(horizon) for horizon in HORIZONS]
        # of the horizons that did equally well, the middle one
        best = [h for h, cost in zip(HORIZONS, costs, strict=True) if cost <= min(costs) * 1.0001]
        self.horizon = best[len(best) // 2]

    def _choose(self, step: int, loss_now: float, horizon: float) -> int:
        margin, samples = max(
            (self._weight * (loss_now - fresh) * horizon - self._price(step, n), n) for n, fresh in self._fresh.items()
        )
        return samples if margin > 0 else 0

    def decide(self, step: int, serving: tuple[int, int], measured: list[float]) -> int:
        """Samples to retrain on now, 0 = keep."""
        return self._choose(step, measured[-1], self.horizon)
