"""Backtest on a user's own Prometheus history: what happened, and what other policies would have done and cost.

Retrains are read off the counters of redeployments: an increase is a new model going live, whose job started one
training time before. Prices, training times and the worth of quality come from the settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from policy.history import Floats, History, Retrain
from policy.observation.live import MAX_GAP_SLOTS, QUALITY, interpolate
from policy.training.evaluation.backtest import OPTIMAL, Make
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.decay import Fit, fit, resampled
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace
from shared.contracts import CLOUDS, MetricWindow, Series
from shared.errors import NoSamplesError
from shared.settings import Settings

#: bootstrap replicates and the interval taken from them
REPLICATES: Final = 40
INTERVAL: Final = (5.0, 95.0)
#: relative sd of the modelled quality cost where another model serves than the one that was measured: the world may
#: have moved in ways no decay model sees. Calibrated by `benchmarks/policy/history_needed.py`
MODEL_ERROR: Final = 0.2
#: steps of a history at most: more are thinned by a longer step
MAX_STEPS: Final = 720
_COUNTERS: Final = ("redeploys", "static_retrains")


@dataclass(frozen=True)
class Answer:
    """What one policy would have done. Dollars over the whole history; `saved_usd` against what you did."""

    policy: str
    decisions: tuple[int, ...]  # one action per step
    starts: tuple[int, ...]  # steps of its retrains
    cost_usd: float
    mean_quality: float
    saved_usd: float
    saved_low_usd: float
    saved_high_usd: float


@dataclass(frozen=True)
class OwnBacktest:
    """The whole answer. `actual_*` is what you did, as measured; `modelled_usd` the same through the decay model."""

    fitted: Fit
    actual_cost_usd: float
    modelled_cost_usd: float
    actual_quality: float
    actual_starts: tuple[int, ...]
    answers: tuple[Answer, ...]


def step_seconds(span_s: float, slot_s: float) -> float:
    """The shortest whole number of slots that gives at most MAX_STEPS steps."""
    return slot_s * max(1, math.ceil(span_s / MAX_STEPS / slot_s))


def grid_of(window: MetricWindow) -> Floats:
    """The times of the steps, counted back from the end as the samples are."""
    steps = int((window.end_s - window.start_s) / window.step_s + 1e-9) + 1
    return np.asarray(window.end_s - window.step_s * np.arange(steps - 1, -1, -1, dtype=np.float64))


def history_of_window(window: MetricWindow, settings: Settings) -> History:
    """The window on its grid of steps. Gaps longer than a few steps stay gaps, as does quality while models swap.

    Raises:
        NoSamplesError: BLEU-1 or exact match was never measured.
    """
    grid_s = grid_of(window)
    steps = len(grid_s)

    rises = _rises(window)
    # a sample taken as the counter rises may be of either model
    swaps = [(before_s, at_s + 0.5 * window.step_s) for before_s, at_s in rises]

    def column(name: str) -> Floats:
        of_one = swaps if name in QUALITY else []
        return interpolate(window.series.get(name, Series((), ())), grid_s, MAX_GAP_SLOTS * window.step_s, of_one)

    for name in QUALITY:
        if not len(window.series.get(name, Series((), ())).values):
            raise NoSamplesError(f"{name} of service {window.service} in the given time", window.missing.get(name, ""))
    hours = np.array([settings.train_hours(cloud) for cloud in CLOUDS])
    price = np.array([settings.price_usd_per_hour(cloud) for cloud in CLOUDS])
    return History(
        step_minutes=window.step_s / 60.0,
        value_usd_per_quality_hour=settings.value_usd_per_quality_hour,
        bleu=column("bleu"),
        accuracy=column("accuracy"),
        request_rate_rps=column("request_rate"),
        latency_s=column("latency"),
        cpu=column("cpu"),
        memory=column("memory"),
        price_usd_per_hour=np.tile(price, (steps, 1)),
        train_hours=hours,
        retrains=_retrains(rises, window.step_s, price * hours, hours, grid_s),
        in_flight=False,
    )


def _rises(window: MetricWindow) -> list[tuple[float, float]]:
    """(last sample before, first sample after) in Unix seconds of every rise of the redeploy counters, in order.

    A fall is a restarted counter.
    """
    rises = set()
    for name in _COUNTERS:
        series = window.series.get(name, Series((), ()))
        samples = list(zip(series.timestamps_s, series.values, strict=True))
        rises |= {(t0, t1) for (t0, before), (t1, after) in itertools.pairwise(samples) if after > before}
    return sorted(rises)


def _retrains(
    rises: Sequence[tuple[float, float]], step_s: float, job_usd: Floats, hours: Floats, grid_s: Floats
) -> tuple[Retrain, ...]:
    """Rises of the redeploy counters as retrains on the cheaper cloud."""
    cloud = int(np.argmin(job_usd))
    delay = max(1, math.ceil(3600.0 * float(hours[cloud]) / step_s - 1e-9))
    live_steps = sorted({math.ceil((at_s - float(grid_s[0])) / step_s) for _, at_s in rises})
    served = [live for live in live_steps if live < len(grid_s)]
    return tuple(Retrain(max(0, live - delay), cloud, live, float(job_usd[cloud])) for live in served)


def answer(
    history: History,
    policies: Sequence[str],
    make: Make,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> OwnBacktest:
    """Fit the history and replay every policy on it, with bootstrap intervals of what would have been saved.

    `progress` is called with the number of finished replicates, of REPLICATES.

    Raises:
        InvalidInputError: the history is too short or has too many gaps.
    """
    fitted = fit(history)
    actual = _actual_decisions(fitted)
    point = {policy: _decisions(fitted.trace(), policy, make, seed) for policy in policies}
    saved: dict[str, list[float]] = {policy: [] for policy in policies}
    rng = np.random.default_rng(seed)
    for replicate in range(REPLICATES):
        drawn = resampled(fitted, rng)
        trace = drawn.trace(rng.normal(0.0, fitted.luck_sd, len(fitted.serving)), beyond=float(rng.uniform(0.0, 1.0)))
        yours = run_cost(trace, actual)
        doubt = rng.normal(0.0, MODEL_ERROR)
        for policy in policies:
            theirs = run_cost(trace, _decisions(trace, policy, make, seed + replicate + 1))
            other_model = float(np.mean(theirs.serving != yours.serving))
            saved[policy].append(yours.cost_usd - theirs.cost_usd - doubt * other_model * theirs.quality_usd)
        progress(replicate + 1)
    trace = fitted.trace()
    modelled = run_cost(trace, actual)
    answers = []
    for policy in policies:
        score = run_cost(trace, point[policy])
        low, high = np.percentile(saved[policy], INTERVAL)
        answers.append(
            Answer(
                policy=policy,
                decisions=tuple(point[policy]),
                starts=tuple(t for t, action in enumerate(point[policy]) if action),
                cost_usd=score.cost_usd,
                mean_quality=score.mean_quality,
                saved_usd=modelled.cost_usd - score.cost_usd,
                saved_low_usd=float(low),
                saved_high_usd=float(high),
            )
        )
    step_value = history.value_usd_per_quality_hour * history.step_minutes / 60.0
    quality = history.quality
    lost = step_value * float(np.nanmean(1.0 - quality)) * len(quality)
    return OwnBacktest(
        fitted=fitted,
        actual_cost_usd=lost + sum(retrain.cost_usd for retrain in history.retrains),
        modelled_cost_usd=modelled.cost_usd,
        actual_quality=float(np.nanmean(quality)),
        actual_starts=tuple(t for t, action in enumerate(actual) if action),
        answers=tuple(answers),
    )


def _decisions(trace: Trace, policy: str, make: Make, seed: int) -> list[int]:
    """As in the live service: nobody re-evaluates former models, and the history is as smooth as it was measured."""
    return list(optimal_plan(trace)[1]) if policy == OPTIMAL else replay(trace, make(policy, trace), seed, window=1)


def _actual_decisions(fitted: Fit) -> list[int]:
    """What was done, as decisions; a start that overlaps the previous job is moved to its end."""
    trace = fitted.trace()
    decisions = [0] * trace.steps
    free = 0
    for retrain in fitted.history.retrains:
        start = max(free, retrain.started)
        if start < trace.steps:
            decisions[start] = retrain.cloud + 1
            free = start + trace.delays[retrain.cloud]
    return decisions
