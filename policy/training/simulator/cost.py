"""The cost of a run of decisions over a drift trace, and the optimal plan: the least that any run could have cost.

J = sum over steps of value * step_minutes / 60 * (1 - quality of the serving model)
    + sum over jobs of price at the start * hours of training.

A job started at step t on cloud c uses data up to t and serves from step t + d_c; until then the old model serves
and no other job may start. A job that would go live at or after the end never serves but costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.training.simulator.trace import Floats, Trace
from shared.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run cost. `serving[t]` is the model that served at step t (the last step of its data)."""

    cost_usd: float
    quality_usd: float
    jobs_usd: float
    retrains: int
    mean_quality: float
    serving: NDArray[np.int64]


def run_cost(trace: Trace, decisions: Sequence[int]) -> RunCost:
    """Score `decisions`, one of 0 hold, 1 retrain on AWS, 2 on Azure per step; 0 while a job is in flight.

    Raises:
        InvalidInputError: wrong length, an unknown action, or a retrain while a job is in flight.
    """
    steps = trace.steps
    if len(decisions) != steps:
        raise InvalidInputError(f"{trace.name}: {len(decisions)} decisions for {steps} steps")
    serving = np.zeros(steps, dtype=np.int64)
    free_from, jobs_usd, retrains = 0, 0.0, 0
    for t, action in enumerate(decisions):
        if action == 0:
            continue
        if action not in (1, 2):
            raise InvalidInputError(f"{trace.name}: decision {action!r} at step {t}; expected 0, 1 or 2")
        if t < free_from:
            raise InvalidInputError(f"{trace.name}: retrain at step {t} while a job runs until step {free_from}")
        free_from = t + trace.delays[action - 1]
        serving[free_from:] = t
        jobs_usd += float(trace.job_usd[t, action - 1])
        retrains += 1
    columns = np.arange(steps)
    quality_usd = float(trace.loss_usd[serving, columns].sum())
    return RunCost(
        cost_usd=quality_usd + jobs_usd,
        quality_usd=quality_usd,
        jobs_usd=jobs_usd,
        retrains=retrains,
        mean_quality=float(trace.quality[serving, columns].mean()),
        serving=serving,
    )


@dataclass(frozen=True)
class Plan:
    """The optimal plan of someone who knows the future.

    `value[t, s]`: least cost from step t on, no job in flight, model s serving.
    """

    cost_usd: float
    decisions: tuple[int, ...]
    value: Floats  # (T + 1, T); row T is zero, and so are models that do not exist yet


def solve(trace: Trace) -> Plan:
    """Exact dynamic programming over (serving model, pending job) with full knowledge of the trace.

    Between two decisions the only freedom is when the next job starts and where, so the pending job is folded into
    one transition: start at t, pay, serve s until t + d, then decide at t + d with model t serving.
    """
    steps = trace.steps
    # steps first, models second: a step's row is contiguous, and only the models up to it exist
    loss = np.ascontiguousarray(trace.loss_usd.T)
    spent = np.zeros((steps + 1, steps))  # [u, s]: quality cost of serving s over steps [0, u)
    np.cumsum(loss, axis=0, out=spent[1:])
    value = np.zeros((steps + 1, steps))
    retrain = np.zeros((2, steps, steps))
    for t in range(steps - 1, -1, -1):
        known = t + 1
        best = loss[t, :known] + value[t + 1, :known]
        for cloud in (0, 1):
            live = t + trace.delays[cloud]
            after = value[live, t] if live < steps else 0.0
            cost = trace.job_usd[t, cloud] + spent[min(live, steps), :known] - spent[t, :known] + after
            retrain[cloud, t, :known] = cost
            best = np.minimum(best, cost)
        value[t, :known] = best
    decisions = [0] * steps
    t = serving = 0
    while t < steps:
        hold_here = float(loss[t, serving] + value[t + 1, serving])
        cloud = int(retrain[1, t, serving] < retrain[0, t, serving])
        if retrain[cloud, t, serving] < hold_here:
            decisions[t] = cloud + 1
            t, serving = t + trace.delays[cloud], t
        else:
            t += 1
    return Plan(float(value[0, 0]), tuple(decisions), value)


def optimal_plan(trace: Trace) -> tuple[float, tuple[int, ...]]:
    """(optimal cost, decisions that reach it): the floor, with full knowledge of the trace."""
    best = solve(trace)
    return best.cost_usd, best.decisions
