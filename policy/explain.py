"""Explanation of a decision: exact Shapley values over the six inputs, and the expected cost of each action.

The question a Shapley value answers here is "what has changed since the serving model was new, and how much did each
change move the probability of the chosen action?": the baseline is the observation of that time. The values add up
to the difference between the two probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats, History
from policy.observation.multistream import FEATURES
from policy.observation.paper import OBSERVATION, SMOOTHING_STEPS, observe
from policy.policies import Evaluation, NetworkPolicy, Policy

INPUTS: Final = tuple(feature.name for feature in OBSERVATION)
_SERIES: Final = ("cpu", "memory", "request_rate_rps", "latency_s", "bleu", "accuracy")
#: first word of a multi-stream feature -> its input; all the others are made of the measured quality
_BLOCKS_OF: Final = {"cpu": "cpu", "memory": "memory", "rate": "request_rate", "latency": "latency"}
#: multi-stream feature -> index of its input
_OWNER: Final = np.array([INPUTS.index(_BLOCKS_OF.get(f.name.partition("_")[0], "accuracy")) for f in FEATURES])


@cache
def coalitions(players: int) -> NDArray[np.bool_]:
    """Every subset of `players` players, (2 ** players, players); row k holds the players whose bit is set in k."""
    return np.array([[bool(k >> p & 1) for p in range(players)] for k in range(2**players)])


@cache
def _weights(players: int) -> Floats:
    """(players, 2 ** players): share of each coalition's worth in each player's Shapley value."""
    members = coalitions(players)
    sizes = members.sum(axis=1)
    factorial = [math.factorial(n) for n in range(players + 1)]
    weights = np.zeros((players, 2**players))
    for p, k in itertools.product(range(players), range(2**players)):
        if members[k, p]:
            weights[p, k] = factorial[sizes[k] - 1] * factorial[players - sizes[k]] / factorial[players]
        else:
            weights[p, k] = -factorial[sizes[k]] * factorial[players - sizes[k] - 1] / factorial[players]
    return weights


def shapley(worth: Callable[[NDArray[np.bool_]], Floats], players: int) -> Floats:
    """Exact Shapley values by enumeration. `worth` maps coalitions (C, players) to their worth (C,)."""
    return np.asarray(_weights(players) @ worth(coalitions(players)), dtype=np.float64)


def explained(
    policy: Policy, history: History, allowed: tuple[bool, bool] = (True, True)
) -> tuple[Evaluation, dict[str, float]]:
    """What a policy makes of a history, and why: input -> its share in the change of the action's probability.

    The shares are empty for a rule: its parameters say all there is to know. One replay of the history serves both.

    Raises:
        OutOfDistributionError, MetricsError: as `Policy.evaluate`.
    """
    if not isinstance(policy, NetworkPolicy):
        return policy.evaluate(history, allowed), {}
    if policy.observation == "paper":
        now, then = _paper_inputs(history)
    else:
        now, then = policy.follow(history, as_when_new(history))
    evaluation = policy.judge(now, allowed)
    owner = np.arange(len(INPUTS)) if policy.observation == "paper" else _OWNER

    def worth(members: NDArray[np.bool_]) -> Floats:
        return policy.probabilities_of(np.where(members[:, owner], now, then))[:, evaluation.action]

    values = shapley(worth, len(INPUTS))
    return evaluation, {name: float(value) for name, value in zip(INPUTS, values, strict=True)}


def _fresh_step(history: History) -> int:
    """The step by which the serving model had its first measurements."""
    return min(history.t, max(history.serving[1], 0) + SMOOTHING_STEPS - 1)


def _paper_inputs(history: History) -> tuple[Floats, Floats]:
    """The six numbers now, and when the serving model was new."""
    now, then = observe(history), observe(_until(history, _fresh_step(history)))
    return now, np.where(np.isfinite(then), then, now)


def as_when_new(history: History) -> History:
    """The history, had every series stayed as it was when the serving model was new.

    Every entry of the multi-stream observation is made of one series (see `_OWNER`), so any mixture of the two
    histories' observations is the observation of one in which some inputs changed and the others did not.
    """
    fresh = _fresh_step(history)
    first = max(history.serving[1], 0)

    def frozen(series: Floats) -> Floats:
        known = series[first : fresh + 1]
        known = known[np.isfinite(known)]
        return (
            series
            if not len(known)
            else np.concatenate([series[: fresh + 1], np.full(history.t - fresh, known.mean())])
        )

    unchanged = {name: frozen(getattr(history, name)) for name in _SERIES}
    return replace(history, **unchanged)  # type: ignore[arg-type]


def _until(history: History, step: int) -> History:
    """The history as it was at an earlier step."""
    end = step + 1
    served = sum(r.live is not None and r.live <= step for r in history.retrains)
    return replace(
        history,
        bleu=history.bleu[:end],
        accuracy=history.accuracy[:end],
        request_rate_rps=history.request_rate_rps[:end],
        latency_s=history.latency_s[:end],
        cpu=history.cpu[:end],
        memory=history.memory[:end],
        price_usd_per_hour=history.price_usd_per_hour[:end],
        retrains=tuple(r for r in history.retrains if r.started <= step),
        former_model_quality=None
        if history.former_model_quality is None
        else history.former_model_quality[: 1 + served, :end],
    )


@dataclass(frozen=True, slots=True)
class ExpectedCosts:
    """What each action would cost over the horizon if the world stayed as it is, in US dollars."""

    horizon_steps: int
    fresh_quality: float  # what the serving model was worth when it was new
    quality: float  # what it is worth now
    retrain_usd: float  # the cheapest retrain now
    lost_usd: float  # quality lost since the serving model was new, in money
    by_action: tuple[float, float, float]  # hold, retrain on AWS, on Azure


def expected_costs(history: History, horizon_steps: int = 24) -> ExpectedCosts | None:
    """The counterfactual: every action's cost over the next steps, or None before anything was measured.

    A retrain is expected to bring back what the serving model was worth when it was new, after the time it takes.
    """
    since = history.quality[max(history.serving[1], 0) :]
    since = since[np.isfinite(since)]
    if not len(since):
        return None
    fresh, now = float(since[:SMOOTHING_STEPS].mean()), float(since[-SMOOTHING_STEPS:].mean())
    per_step = history.value_usd_per_quality_hour * history.step_minutes / 60.0
    hold = per_step * (1.0 - now) * horizon_steps
    cost = history.retrain_cost_usd()
    renewed = []
    for cloud in (0, 1):
        delay = min(horizon_steps, max(1, math.ceil(60.0 * history.train_hours[cloud] / history.step_minutes)))
        quality_usd = per_step * ((1.0 - now) * delay + (1.0 - max(fresh, now)) * (horizon_steps - delay))
        renewed.append(float(cost[cloud]) + quality_usd)
    return ExpectedCosts(
        horizon_steps=horizon_steps,
        fresh_quality=fresh,
        quality=now,
        retrain_usd=float(cost.min()),
        lost_usd=per_step * float(np.maximum(fresh - since, 0.0).sum()),
        by_action=(hold, renewed[0], renewed[1]),
    )
