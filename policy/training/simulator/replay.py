"""Replay of a decider over a drift trace, showing it at each step what it could have seen and nothing else.

Noise: BLEU-1 and exact match of one model at one step get independent normal noise of sd `noise_sd * sqrt(2)` each, so
that the measured quality has sd `noise_sd`. It is not clipped, so that the mean stays
right. The draws belong to (seed, model, step): every decider that serves the same model sees the same measurements,
and re-evaluating a model twice at one step brings nothing new.

A live service measures by labelled answers, a window of steps at a time, and only the model that answers: `window`
gives a decider that view. The mean over a whole window then has sd `noise_sd`, a younger model's a larger one.
"""

from __future__ import annotations

import numpy as np

from policy.history import Decider, Floats, History, Retrain
from policy.training.simulator.trace import Trace
from shared.errors import InvalidInputError
from shared.quality import quality


def measured(trace: Trace, model: int, seed: int, window: int = 1) -> Floats:
    """Measured (BLEU-1, exact match) of one model at every step, (2, T); NaN before the model existed.

    With noise of which the mean over `window` steps has sd `noise_sd`.
    """
    exact = np.stack([trace.bleu[model], trace.accuracy[model]]).astype(np.float64)
    exact[:, :model] = np.nan
    if trace.noise_sd:
        rng = np.random.default_rng([seed, model])
        exact += trace.noise_sd * np.sqrt(2.0 * window) * rng.standard_normal((2, trace.steps))
    return exact


def replay(trace: Trace, decider: Decider, seed: int = 0, window: int | None = None) -> list[int]:
    """The decider's actions, one per step; 0 while a job is in flight.

    `window` None: a step is measured by itself, and every model that ever served is re-evaluated at each. A number: as
    in a live service, means over that many steps, and nothing is re-evaluated.

    Raises:
        InvalidInputError: the decider answered with an unknown action.
    """
    decider.reset(seed)
    steps = trace.steps
    serving_seen = np.empty((2, steps))  # what was measured of whichever model served
    own = np.full((1, steps), np.nan)  # quality of every own model, re-evaluated
    span = window or 1
    current, live = measured(trace, 0, seed, span), 0
    own[0] = quality(*current)
    operations = {
        name: getattr(trace, name).astype(np.float64)
        for name in ("request_rate_rps", "latency_s", "cpu", "memory", "price_usd_per_hour")
    }
    train_hours = trace.train_hours.astype(np.float64)
    retrains: list[Retrain] = []
    decisions = [0] * steps
    pending: tuple[int, int] | None = None  # (model, step it goes live)
    for t in range(steps):
        if pending is not None and pending[1] == t:
            current, live = measured(trace, pending[0], seed, span), t
            own = np.concatenate([own, quality(*current)[None]])
            last = retrains[-1]
            retrains[-1] = Retrain(last.started, last.cloud, t, last.cost_usd)
            pending = None
        serving_seen[:, t] = current[:, max(live, t + 1 - span) : t + 1].mean(axis=1)
        if pending is not None:
            continue
        seen = slice(0, t + 1)
        history = History(
            step_minutes=trace.step_minutes,
            value_usd_per_quality_hour=trace.value_usd_per_quality_hour,
            bleu=serving_seen[0, seen],
            accuracy=serving_seen[1, seen],
            request_rate_rps=operations["request_rate_rps"][seen],
            latency_s=operations["latency_s"][seen],
            cpu=operations["cpu"][seen],
            memory=operations["memory"][seen],
            price_usd_per_hour=operations["price_usd_per_hour"][seen],
            train_hours=train_hours,
            retrains=tuple(retrains),
            in_flight=False,
            former_model_quality=own[:, seen] if window is None else None,
        )
        action = int(decider.decide(history))
        if action not in (0, 1, 2):
            raise InvalidInputError(f"{decider.name}: action {action} at step {t} of {trace.name}; expected 0, 1 or 2")
        if action:
            decisions[t] = action
            cloud = action - 1
            retrains.append(Retrain(t, cloud, None, float(trace.job_usd[t, cloud])))
            pending = (t, t + trace.delays[cloud])
    return decisions
