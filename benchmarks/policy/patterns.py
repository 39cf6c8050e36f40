"""Drift as simple as can be: what a policy makes of patterns that anybody would try first.

    python -m benchmarks.policy.patterns [--policy NAME|FILE.onnx]... [--json FILE]

Quality starts at 0.9. What a model has lost after some steps is `line`: in proportion to its age, until nothing is
left; `levelling`: the same at first, but half at most; `square`: slow at first, then faster and faster; `stairs`: the
same as the line, but all at once every 25 steps. Each in 100 steps, at three paces, three delays of a retrain, with and
without noise, at three prices (in points of quality for one step). A new model is as good as the first. Nothing here
is drawn but the noise, and nobody trains on it; the family `textbook` of the generators is of the same kind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from policy.training.baselines.registry import check_policy, decider_for
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Floats, Trace
from shared.errors import OpportuneError

STEPS: Final = 100
FRESH: Final = 0.9
STAIR: Final = 25
VALUE_USD: Final = 10.0
PATTERNS: Final = ("line", "levelling", "square", "stairs")
PACES: Final = (0.003, 0.01, 0.03)
DELAYS: Final = (1, 4, 12)
NOISES: Final = (0.0, 0.02)
PRICES: Final = (0.5, 1.5, 5.0)
POLICIES: Final = ("ppo", "regret", "cusum", "threshold", "page-hinkley", "modyn", "periodic", "never")


class Case(NamedTuple):
    """One trace. `pace` is lost per step at first (`square`: on average over 40), `delay` in steps, `price` in
    points x steps."""

    pattern: str
    pace: float
    delay: int
    noise_sd: float
    price: float


CASES: Final = tuple(Case(*each) for each in itertools.product(PATTERNS, PACES, DELAYS, NOISES, PRICES))


def lost(pattern: str, pace: float) -> Floats:
    """What model i has lost by step j, (STEPS, STEPS); meaningless below the diagonal."""
    step = np.arange(STEPS, dtype=np.float64)
    age = np.maximum(step[None, :] - step[:, None], 0.0)
    if pattern == "line":
        return pace * age
    if pattern == "levelling":
        return np.asarray(-0.5 * np.expm1(-2.0 * pace * age))
    if pattern == "square":
        return pace * age**2 / 40.0
    world = pace * STAIR * np.floor(step / STAIR)
    return world[None, :] - world[:, None]


def trace_of(case: Case) -> Trace:
    """The trace of a case: steps of a minute, both clouds alike."""
    quality = np.clip(FRESH - lost(case.pattern, case.pace), 0.0, 1.0)
    quality[np.tril_indices(STEPS, -1)] = np.nan
    hours = case.delay / 60.0 - 1e-4  # rounding must not add a step
    ones = np.ones(STEPS, dtype=np.float32)
    return Trace(
        bleu=quality.astype(np.float32),
        accuracy=quality.astype(np.float32),
        request_rate_rps=10.0 * ones,
        latency_s=0.1 * ones,
        cpu=0.5 * ones,
        memory=0.5 * ones,
        price_usd_per_hour=np.full((STEPS, 2), case.price * VALUE_USD / 60.0 / hours, dtype=np.float32),
        train_hours=np.full(2, hours, dtype=np.float32),
        step_minutes=1.0,
        value_usd_per_quality_hour=VALUE_USD,
        noise_sd=case.noise_sd,
        name=case.pattern,
    )


def ratios(case: Case, policies: tuple[str, ...]) -> list[float]:
    """J / J* of every policy."""
    trace = trace_of(case)
    best, _ = optimal_plan(trace)
    return [run_cost(trace, replay(trace, decider_for(policy, trace))).cost_usd / best for policy in policies]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", action="append", help=f"default: {', '.join(POLICIES)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    policies = tuple(args.policy or POLICIES)
    try:
        for policy in policies:
            check_policy(policy)
    except OpportuneError as error:
        parser.error(str(error))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(args.workers) as pool:
        found = np.array(list(pool.map(ratios, CASES, itertools.repeat(policies), chunksize=4)))  # (cases, policies)
    of = np.array([case.pattern for case in CASES])
    print(f"mean J/J* (worst) over {len(CASES)} cases\n")
    print(f"| policy | all | {' | '.join(PATTERNS)} |\n|---|---|{'---|' * len(PATTERNS)}")
    for k in np.argsort(found.mean(axis=0)):
        groups = [found[:, k], *(found[of == pattern, k] for pattern in PATTERNS)]
        print(f"| {policies[k]} | {' | '.join(f'{g.mean():.3f} ({g.max():.2f})' for g in groups)} |")
    if args.json:
        rows = [
            {**case._asdict(), **dict(zip(policies, row, strict=True))}
            for case, row in zip(CASES, found.tolist(), strict=True)
        ]
        args.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
