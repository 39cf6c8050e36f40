"""What a policy's advantage rests on: the same policy with one thing taken away.

`ppo@cheapest` keeps the timing of `ppo` and places every job on the cloud that is cheapest now, as the rules do.
`ppo@flat-resources`, `@flat-load`, `@flat-prices` hide one stream by showing it as if it never changed.
`ppo@serving-only` is not shown what former models would be worth now, as in a live service that does not re-evaluate
them; `@window-32` and `@window-128` see the last that many steps of the serving model
only. What the network is without a stream from the start of its training, `benchmarks.policy.convergence` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from policy.history import Decider, History


def _flat_resources(history: History) -> History:
    return replace(history, cpu=np.full_like(history.cpu, 0.5), memory=np.full_like(history.memory, 0.5))


def _flat_load(history: History) -> History:
    rate, latency = history.request_rate_rps, history.latency_s
    return replace(history, request_rate_rps=np.full_like(rate, 50.0), latency_s=np.full_like(latency, 0.1))


def _flat_prices(history: History) -> History:
    price = history.price_usd_per_hour
    return replace(history, price_usd_per_hour=np.tile(price.mean(axis=0), (len(price), 1)))


def _serving_only(history: History) -> History:
    return replace(history, former_model_quality=None)


def _window(slots: int) -> Callable[[History], History]:
    def cut(history: History) -> History:
        first = max(0, history.t + 1 - slots)
        series = ("bleu", "accuracy", "request_rate_rps", "latency_s", "cpu", "memory", "price_usd_per_hour")
        moved = tuple(
            replace(r, started=r.started - first, live=None if r.live is None else r.live - first)
            for r in history.retrains
        )
        shorter = {name: getattr(history, name)[first:] for name in series}
        return replace(history, **shorter, retrains=moved, former_model_quality=None)

    return cut


HIDE: Final[dict[str, Callable[[History], History]]] = {
    "flat-resources": _flat_resources,
    "flat-load": _flat_load,
    "flat-prices": _flat_prices,
    "serving-only": _serving_only,
    "window-32": _window(32),
    "window-128": _window(128),
}
ABLATIONS: Final = ("cheapest", *HIDE)


class Ablated:
    """A policy without one of its advantages."""

    def __init__(self, policy: Decider, ablation: str) -> None:
        self.name = f"{policy.name}@{ablation}"
        self._policy, self._ablation = policy, ablation

    def reset(self, seed: int) -> None:
        """Reset the policy."""
        self._policy.reset(seed)

    def decide(self, history: History) -> int:
        """The policy's action under the ablation."""
        if self._ablation == "cheapest":
            return history.cheapest_action() if self._policy.decide(history) else 0
        return self._policy.decide(HIDE[self._ablation](history))
