"""Pool of drift traces and their optimal plans, packed for batched look-ups by the environment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.training.simulator.cost import solve
from policy.training.simulator.generators import APART, FAMILIES, USUAL, WIDE, Spread, generate
from policy.training.simulator.trace import Floats, Trace

_OPERATIONS: Final = ("latency_s", "request_rate_rps", "cpu", "memory")


class Pool:
    """Traces by number. Entry (model s, step t), s <= t, of a triangular table lies at `t * (t + 1) / 2 + s`."""

    def __init__(self, traces: Iterable[Trace]) -> None:
        loss, value, quality, operations, jobs, best, fresh = [], [], [], [], [], [], []
        starts, steps, delays, step_value, noise, optimum = [0], [], [], [], [], []
        digest = hashlib.sha256()
        line_starts = [0]
        for trace in traces:
            n = trace.steps
            optimal = solve(trace)
            column, row = np.tril_indices(n)  # step t, model s
            quality.append(trace.quality[row, column].astype(np.float32))
            loss.append(trace.loss_usd[row, column].astype(np.float32))
            value.append(optimal.value[column, row].astype(np.float32))
            operations.append(np.stack([getattr(trace, name) for name in _OPERATIONS], axis=1))
            jobs.append(trace.job_usd)
            best.append(np.array(optimal.decisions, dtype=np.int64))
            fresh.append(np.diag(trace.quality))
            starts.append(starts[-1] + len(row))
            line_starts.append(line_starts[-1] + n)
            steps.append(n)
            delays.append(trace.delays)
            step_value.append(trace.value_usd_per_quality_hour * trace.step_minutes / 60.0)
            noise.append(trace.noise_sd)
            optimum.append(optimal.cost_usd)
            digest.update(trace.sha256().encode())
        self.quality, self.loss_usd = np.concatenate(quality), np.concatenate(loss)
        self.value_usd = np.concatenate(value)
        self.operations = np.concatenate(operations).astype(np.float64)  # (sum of T, 4)
        self.job_usd = np.concatenate(jobs)  # (sum of T, 2)
        self.best_action = np.concatenate(best)
        self.starts = np.array(starts[:-1])
        self.line_starts = np.array(line_starts[:-1])
        self.steps = np.array(steps)
        self.delays = np.array(delays)  # (P, 2)
        self.step_value_usd, self.noise_sd = np.array(step_value), np.array(noise)
        self.optimum_usd = np.array(optimum)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.steps)

    def at(self, trace: NDArray[np.int64], model: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index into the triangular tables."""
        return np.asarray(self.starts[trace] + step * (step + 1) // 2 + model)

    def value(self, trace: NDArray[np.int64], model: NDArray[np.int64], step: NDArray[np.int64]) -> Floats:
        """V*: least cost from `step` on with `model` serving and no job in flight; 0 after the end."""
        inside = step < self.steps[trace]
        found = self.value_usd[self.at(trace, np.where(inside, model, 0), np.where(inside, step, 0))]
        return np.where(inside, found, 0.0)


def listed(trace: Trace) -> Trace:
    """The service at list prices, those of its first step, where a retrain takes as long on either cloud."""
    hours = np.repeat(trace.train_hours[:1], 2)
    price = trace.price_usd_per_hour[:1] * trace.train_hours / hours  # a retrain costs what it did
    return replace(trace, train_hours=hours, price_usd_per_hour=np.repeat(price, trace.steps, axis=0))


def training_pool(
    count: int,
    seed: int,
    families: Sequence[str] = tuple(FAMILIES),
    spread: Spread = USUAL,
    wide_share: float = 0.0,
    listed_share: float = 0.0,
) -> Pool:
    """`count` traces, the families in turn; a share of them spread as wide as life.

    `listed_share` is the share of the wide ones, and of those of the families made otherwise, that pay list prices.
    """
    rng = np.random.default_rng(seed)
    wide, plain = rng.random(count) < wide_share, rng.random(count) < listed_share
    first = 1_000_000 + 100_000 * seed

    def trace_of(k: int) -> Trace:
        family = families[k % len(families)]
        trace = generate(family, first + k, spread=WIDE if wide[k] else spread)
        return listed(trace) if plain[k] and (wide[k] or family in APART) else trace

    return Pool(trace_of(k) for k in range(count))
