"""Retrain policies where life is unlike the generated traces: one disturbance at a time, on traces of every family.

    python -m benchmarks.policy.disturbances [--per-family 20] [--kind NAME]... [--policy NAME|FILE.onnx]...
                                             [--json FILE]

`none` is the traces as they are, at retrain prices of 0.3 to 30 points x steps. Every other kind changes the quality
that models have, or how it is measured: single bad steps, a day and a night, few labels, harder questions for every
model at once or more and more, a world that flickers, later models that know more, models that differ from step to
step, answers that are counted. No policy is trained on any of these. Mean J/J* and retrains per trace, the optimum's
in the last row. Seeds are neither training's nor validation's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.policy.decision import runs_of
from policy.history import Floats
from policy.training.baselines.registry import check_policy
from policy.training.simulator.cost import optimal_plan
from policy.training.simulator.generators import FAMILIES, USUAL, generate
from policy.training.simulator.pool import listed
from policy.training.simulator.trace import Trace
from shared.errors import OpportuneError

FIRST_SEED: Final = 504_000_000
POLICIES: Final = ("ppo", "regret", "page-hinkley", "cusum", "threshold", "amuse", "modyn", "never")
_SPREAD: Final = replace(USUAL, cost_usd=(0.3, 30.0))
#: distance by which a flickering world is beside its path, log-uniform
_FLICKER: Final = (0.05, 0.5)

Rng = np.random.Generator
Disturbance = Callable[[Floats, Rng], Floats]
"""Quality (T, T) -> quality with one thing unlike the generators' worlds."""


def _every(quality: Floats, by_step: Floats) -> Floats:
    """The quality of every model, changed by `by_step`, (T,)."""
    return quality + by_step[None, :]


def as_it_is(quality: Floats, _: Rng) -> Floats:
    """What is unlike lies elsewhere."""
    return quality


def bad_steps(quality: Floats, rng: Rng) -> Floats:
    """One step in 25 goes badly with any model."""
    steps = len(quality)
    return _every(quality, np.where(rng.random(steps) < 0.04, -rng.uniform(0.1, 0.5, steps), 0.0))


def day_and_night(quality: Floats, rng: Rng) -> Floats:
    """Questions are easier and harder in a wave."""
    turns = np.arange(len(quality)) / rng.uniform(12.0, 72.0) + rng.random()
    return _every(quality, float(rng.uniform(0.03, 0.12)) * np.sin(2.0 * np.pi * turns))


def harder_at_once(quality: Floats, rng: Rng) -> Floats:
    """From one step on questions are harder for any model."""
    steps = len(quality)
    return _every(quality, np.where(np.arange(steps) >= rng.integers(10, steps - 10), -rng.uniform(0.1, 0.4), 0.0))


def harder_and_harder(quality: Floats, rng: Rng) -> Floats:
    """Questions get harder for any model, evenly."""
    steps = len(quality)
    return _every(quality, np.arange(steps) / steps * -float(rng.uniform(0.1, 0.5)))


def growing_data(quality: Floats, rng: Rng) -> Floats:
    """The later a model is trained, the more it knows."""
    missing = rng.uniform(0.05, 0.3) * np.exp(-np.arange(len(quality)) / rng.uniform(20.0, 120.0))
    return quality - missing[:, None]


def moods(quality: Floats, rng: Rng) -> Floats:
    """Every model has good and bad steps of its own."""
    return quality + rng.normal(0.0, rng.uniform(0.02, 0.1), quality.shape)


def counted(quality: Floats, rng: Rng) -> Floats:
    """Quality is a count of right answers among 5 to 29."""
    answers = int(rng.integers(5, 30))
    return rng.binomial(answers, np.nan_to_num(quality, nan=0.5).clip(0.0, 1.0)) / answers


CHANGES: Final[dict[str, Disturbance]] = {
    "none": as_it_is,
    "bad steps": bad_steps,
    "day and night": day_and_night,
    "few labels": as_it_is,
    "moods": moods,
    "counted": counted,
    "growing data": growing_data,
    "harder at once": harder_at_once,
    "harder and harder": harder_and_harder,
    "flicker": as_it_is,
}


def trace_of(kind: str, family: str, number: int) -> Trace:
    """The trace of a family with that disturbance; every second one pays list prices."""
    rng = np.random.default_rng([FIRST_SEED, number, tuple(FAMILIES).index(family)])
    flicker = float(np.exp(rng.uniform(*np.log(_FLICKER)))) if kind == "flicker" else 0.0
    trace = generate(family, FIRST_SEED + number, spread=_SPREAD, flicker=flicker)
    trace = listed(trace) if number % 2 else trace
    quality = np.clip(CHANGES[kind](trace.quality, rng), 0.0, 1.0).astype(np.float32)
    quality[np.tril_indices(trace.steps, -1)] = np.nan
    noise = {"few labels": float(rng.uniform(0.08, 0.2)), "counted": 0.0}  # a count carries its own
    return replace(trace, bleu=quality, accuracy=quality.copy(), noise_sd=noise.get(kind, trace.noise_sd))


def measured(kind: str, family: str, per_family: int, policies: tuple[str, ...]) -> dict[str, list[list[float]]]:
    """Policy (and "optimum") -> [J/J*, retrains] of every trace of a kind and family."""
    traces = [trace_of(kind, family, number) for number in range(per_family)]
    optima = [optimal_plan(trace) for trace in traces]
    runs = runs_of(traces, range(per_family), optima, policies)
    found = {policy: [run[policy][:2] for run in runs] for policy in policies}
    return {**found, "optimum": [[1.0, float(np.count_nonzero(plan))] for _, plan in optima]}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=20)
    parser.add_argument("--kind", action="append", choices=tuple(CHANGES), help="default: every one")
    parser.add_argument("--policy", action="append", help=f"default: {', '.join(POLICIES)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    policies, kinds = tuple(args.policy or POLICIES), tuple(args.kind or CHANGES)
    try:
        for policy in policies:
            check_policy(policy)
    except OpportuneError as error:
        parser.error(str(error))
    if args.per_family < 1:
        parser.error(f"--per-family {args.per_family}: at least one trace")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    jobs = [(kind, family) for kind in kinds for family in FAMILIES]
    table: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in kinds}
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        every = [args.per_family] * len(jobs), [policies] * len(jobs)
        measuring = pool.map(measured, *zip(*jobs, strict=True), *every)
        for done, ((kind, _), found) in enumerate(zip(jobs, measuring, strict=True), 1):
            for policy, runs in found.items():
                table[kind].setdefault(policy, []).extend(runs)
            print(f"{done}/{len(jobs)}: {kind}", file=sys.stderr, flush=True)
    print(f"mean J/J* (retrains) over {args.per_family * len(FAMILIES)} traces each\n")
    print(f"| policy | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for policy in (*policies, "optimum"):
        cells = [np.mean(table[kind][policy], axis=0) for kind in kinds]
        print(f"| {policy} | {' | '.join(f'{ratio:.3f} ({retrains:.2f})' for ratio, retrains in cells)} |")
    if args.json:
        args.json.write_text(json.dumps(table))


if __name__ == "__main__":
    main()
