"""What it costs that a live service measures the mean over a window of answers, and nobody re-evaluates former models.

    python -m benchmarks.policy.live_quality [--per-family 30] [--windows 1 10] [--labels 3]
                                             [--policy NAME|FILE.onnx]... [--json] [--runs FILE]

A trace can be measured step by step, each step by itself, and all models that ever served with it: the first column,
and what `benchmarks.policy.decision` measures. A live service has the labelled answers of the last so many steps, of
the model that answered them. The noise of a full window is the trace's own in every column, so what differs is the
delay; with `--labels N` it is that of N answers a step, so longer windows are also less noisy. Same traces as in
`benchmarks.policy.decision`. The second table: `ppo` against the best rule of each column, paired, 95 %. A serving
container measures over ten minutes unless told otherwise, so the last column is what a live service decides on.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.policy.decision import FIRST_SEED, OURS
from benchmarks.policy.intervals import bootstrap
from policy.training.baselines.registry import BASELINES, check_policy, decider_for
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.generators import FAMILIES, HELD_OUT, generate
from policy.training.simulator.replay import replay
from shared.errors import OpportuneError

#: the fast rules that are best in a family or over all of `benchmarks.policy.decision`, and the next best
RULES: Final = (
    "regret",
    "modyn",
    "cara-ct",
    "cusum",
    "amuse",
    "page-hinkley",
    "threshold",
    "cara-t",
    "never",
    "static",
)

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


def summary(jobs: Sequence[Job], runs: Sequence[Runs], windows: Sequence[int | None]) -> dict[str, Any]:
    """What `--json` prints: per policy and window mean and interval, per window the duel with the best rule.

    A window of null is the plain view: each step by itself, former models re-evaluated.
    """
    strata = [family for family, _ in jobs]
    values = {policy: np.array([run[policy] for run in runs]) for policy in runs[0]}  # (traces, windows, 3)
    table = []
    for policy, scored in values.items():
        views = []
        for k, window in enumerate(windows):
            costs, retrains, optimum = scored[:, k, 0], scored[:, k, 1], scored[:, k, 2]
            low, high = bootstrap(costs, strata)["mean"]
            families = {f: _short(costs[np.array(strata) == f].mean()) for f in dict.fromkeys(strata)}
            views.append(
                {
                    "window": window,
                    "mean": _short(costs.mean()),
                    "low": _short(low),
                    "high": _short(high),
                    "retrains": _short(retrains.mean()),
                    "of_the_optimum": _short(retrains.sum() / max(1.0, optimum.sum())),
                    "families": families,
                }
            )
        table.append({"policy": policy, "views": views})
    table.sort(key=lambda row: float(row["views"][-1]["mean"]))  # type: ignore[index]
    optimum_retrains = _short(values[next(iter(values))][:, 0, 2].mean())
    return {
        "traces": len(jobs),
        "families": len(set(strata)),
        "windows": list(windows),
        "optimum_retrains": optimum_retrains,
        "policies": table,
        "duels": _duels(values, strata, windows),
    }


def _duels(
    values: dict[str, NDArray[np.float64]], strata: Sequence[str], windows: Sequence[int | None]
) -> list[dict[str, Any]]:
    """`ppo` against the best rule of each window, on the same traces."""
    rules = [policy for policy in values if policy in BASELINES]
    if OURS not in values or not rules:
        return []
    found = []
    for k, window in enumerate(windows):
        best = min(rules, key=lambda rule: float(values[rule][:, k, 0].mean()))
        ours, theirs = values[OURS][:, k, 0], values[best][:, k, 0]
        low, high = bootstrap(ours - theirs, strata)["mean"]
        found.append(
            {
                "window": window,
                "ours": _short(ours.mean()),
                "rule": best,
                "rule_mean": _short(theirs.mean()),
                "difference": _short((ours - theirs).mean()),
                "low": _short(low),
                "high": _short(high),
            }
        )
    return found


def _short(value: Any) -> float:
    return round(float(value), 4)


def show(table: dict[str, Any]) -> None:
    """The tables, in Markdown."""
    named = {w: "each step, re-evaluated" if w is None else f"mean of {w}" for w in table["windows"]}
    print(f"| policy | {' | '.join(named.values())} |\n|---{'|---' * len(named)}|")
    for row in table["policies"]:
        cells = (f"{view['mean']:.3f} ({view['of_the_optimum']:.2f}×)" for view in row["views"])
        print(f"| {row['policy']} | {' | '.join(cells)} |")
    if not table["duels"]:
        return
    print(f"\n| measured | {OURS} | best rule | its mean | paired difference | interval |\n|---|---|---|---|---|---|")
    for duel in table["duels"]:
        print(
            f"| {named[duel['window']]} | {duel['ours']:.3f} | {duel['rule']} | {duel['rule_mean']:.3f} "
            f"| {duel['difference']:+.4f} | {duel['low']:+.4f} to {duel['high']:+.4f} |"
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=30)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--labels", type=int, help="labelled answers a step; default: the noise of the trace")
    parser.add_argument("--policy", action="append", help=f"default: {', '.join((OURS, *RULES))}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output instead of tables")
    parser.add_argument("--runs", type=Path, help="every run of every policy, as JSON, into this file")
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
    table = {"per_family": args.per_family, "labels": args.labels, **summary(jobs, runs, windows)}
    if args.json:
        print(json.dumps(table))
    else:
        show(table)
    if args.runs:
        args.runs.write_text(json.dumps({"windows": windows, "jobs": jobs, "runs": runs}))


if __name__ == "__main__":
    main()
