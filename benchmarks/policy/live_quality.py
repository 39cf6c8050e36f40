"""What it costs that a live service measures the mean over a window of answers, and nobody re-evaluates former models.

    python -m benchmarks.policy.live_quality [--per-family 30] [--windows 1 6 12] [--labels 3]
                                             [--policy NAME|FILE.onnx]... [--json FILE]

A trace can be measured step by step, each step by itself, and all models that ever served with it: the first column,
and what `benchmarks.policy.decision` measures. A live service has the labelled answers of the last so many steps, of
the model that answered them. The noise of a full window is the trace's own in every column, so what differs is the
delay; with `--labels N` it is that of N answers a step, so longer windows are also less noisy. Same traces as in
`benchmarks.policy.decision`. The second table: `ppo` against the best rule of each column, paired, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.policy.decision import FIRST_SEED, OURS
from benchmarks.policy.intervals import bootstrap
from policy.training.baselines.registry import BASELINES, check_policy, decider_for
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.generators import FAMILIES, HELD_OUT, generate
from policy.training.simulator.replay import replay
from shared.errors import OpportuneError

#: the fast rules that are best in a family or over all of `benchmarks.policy.decision`, and the next best
RULES: Final = ("regret", "modyn", "cara-ct", "cusum", "amuse", "page-hinkley", "threshold", "cara-t", "never")

#: sd of one answer's quality: right or wrong, 0.77 of them right
ANSWER_SD: Final = 0.42

Job = tuple[str, int]  # (family, seed)
#: policy -> [[J/J*, retrains, the optimum's retrains] for every window]
Runs = dict[str, list[list[float]]]


def run(job: Job, policies: list[str], windows: list[int | None], labels: int | None) -> Runs:
    """Every policy under every window on one trace."""
    family, seed = job
    trace = generate(family, seed)
    best, planned = optimal_plan(trace)
    # the optimal plan knows the truth, whatever is measured
    noises = [ANSWER_SD / math.sqrt(labels * (window or 1)) if labels else trace.noise_sd for window in windows]
    noisy = [replace(trace, noise_sd=noise) for noise in noises]
    optimum = sum(action > 0 for action in planned)
    runs: Runs = {}
    for policy in policies:
        runs[policy] = []
        for window, measured in zip(windows, noisy, strict=True):
            scored = run_cost(trace, replay(measured, decider_for(policy, measured), seed, window))
            runs[policy].append([scored.cost_usd / best, float(scored.retrains), float(optimum)])
    return runs


def show(jobs: list[Job], runs: list[Runs], windows: list[int | None]) -> None:
    """The tables, in Markdown."""
    strata = [family for family, _ in jobs]
    values = {policy: np.array([r[policy] for r in runs]) for policy in runs[0]}  # (traces, windows, 3)
    named = ["each step, re-evaluated" if w is None else f"mean of {w}" for w in windows]
    print(f"| policy | {' | '.join(named)} |\n|---{'|---' * len(windows)}|")
    for policy, scored in sorted(values.items(), key=lambda item: float(item[1][:, :, 0].mean())):
        means, retrains = scored[:, :, 0].mean(axis=0), scored[:, :, 1].sum(axis=0) / scored[:, :, 2].sum(axis=0)
        print(f"| {policy} | {' | '.join(f'{m:.3f} ({n:.2f}×)' for m, n in zip(means, retrains, strict=True))} |")
    rules = [policy for policy in values if policy in BASELINES]
    if OURS not in values or not rules:
        return
    print(f"\n| measured | {OURS} | best rule | its mean | paired difference | interval |\n|---|---|---|---|---|---|")
    for k, name in enumerate(named):
        best = min(rules, key=lambda rule: float(values[rule][:, k, 0].mean()))
        ours, theirs = values[OURS][:, k, 0], values[best][:, k, 0]
        low, high = bootstrap(ours - theirs, strata)["mean"]
        print(
            f"| {name} | {ours.mean():.3f} | {best} | {theirs.mean():.3f} | {(ours - theirs).mean():+.4f} "
            f"| {low:+.4f} to {high:+.4f} |"
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=30)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 6, 12])
    parser.add_argument("--labels", type=int, help="labelled answers a step; default: the noise of the trace")
    parser.add_argument("--policy", action="append", help=f"default: {', '.join((OURS, *RULES))}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if min(args.windows) < 1:
        parser.error(f"--windows {min(args.windows)}: at least one step")
    if args.labels is not None and args.labels < 1:
        parser.error(f"--labels {args.labels}: at least one")
    policies = args.policy or [OURS, *RULES]
    try:
        for policy in policies:
            check_policy(policy)
    except OpportuneError as error:
        parser.error(str(error))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    windows: list[int | None] = [None, *args.windows]
    jobs = [(family, FIRST_SEED + k) for family in (*FAMILIES, *HELD_OUT) for k in range(args.per_family)]
    runs: list[Runs] = []
    with ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(
            run, jobs, [policies] * len(jobs), [windows] * len(jobs), [args.labels] * len(jobs), chunksize=4
        ):
            runs.append(done)
            if len(runs) % 40 == 0:
                print(f"{len(runs)}/{len(jobs)} traces", file=sys.stderr, flush=True)
    show(jobs, runs, windows)
    if args.json:
        args.json.write_text(json.dumps({"windows": windows, "jobs": jobs, "runs": runs}))


if __name__ == "__main__":
    main()
