"""Retrain policies over drift families and cost ratios: J/J*, retrains, quality.

    python -m benchmarks.decision [--per-family 40] [--policy NAME|FILE.onnx]... [--ablations] [--json FILE]

The traces are the project's own test set (seeds that nothing is trained or tuned on; families marked * are not
trained on at all) and the real matrices, each at three prices. Intervals are 95 %, stratified bootstrap over traces.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.ablations import ABLATIONS, Ablated
from benchmarks.intervals import bootstrap, interquartile_mean
from policy.rivals.registry import RIVALS
from policy.rivals.tuning import ratio_of
from policy.training.backtest import Run, check_policy, decider_for, run_one
from policy.training.generators import FAMILIES, HELD_OUT, generate
from policy.training.replay import replay
from policy.training.score import oracle, run_cost
from policy.training.trace import Trace, load

FIRST_SEED: Final = 900_000
REAL: Final = Path(__file__).parents[1] / "policy" / "training" / "real"
#: cost of a retrain on a real matrix, in units of one point of quality for one step
REAL_RATIOS: Final = (0.5, 2.0, 8.0)
#: reported buckets of cost ratios
EDGES: Final = (2.0, 8.0, 30.0)
BUCKETS: Final = ("below 2", "2 to 8", "8 to 30", "above 30")
SLOW: Final = ("upf",)

Job = tuple[str, str, int]  # (family, file or "", seed)


def jobs_of(per_family: int) -> list[Job]:
    """The test set, then the real matrices."""
    generated = [(family, "", FIRST_SEED + k) for family in (*FAMILIES, *HELD_OUT) for k in range(per_family)]
    real = [("real", str(file), index) for file in sorted(REAL.glob("*.npz")) for index in range(len(REAL_RATIOS))]
    return [*generated, *real]


def trace_of(job: Job) -> Trace:
    """The trace of a job; a real matrix is repriced to one of the cost ratios."""
    family, file, seed = job
    if not file:
        return generate(family, seed)
    trace = load(Path(file))
    factor = np.float32(REAL_RATIOS[seed] / ratio_of(trace))
    return replace(
        trace, price_usd_per_hour=trace.price_usd_per_hour * factor, name=f"{trace.name}@{REAL_RATIOS[seed]}"
    )


def run_job(job: Job, policies: Sequence[str]) -> tuple[Job, float, list[Run], int]:
    """(job, cost ratio, runs, retrains of the oracle)."""
    trace = trace_of(job)
    best = oracle(trace)
    runs = []
    for policy in policies:
        name, _, ablation = policy.partition("@")
        if ablation:
            decisions = replay(trace, Ablated(decider_for(name, trace), ablation), job[2])
            score = run_cost(trace, decisions)
            runs.append(
                Run(
                    trace.name,
                    policy,
                    job[2],
                    tuple(decisions),
                    score.cost_usd,
                    best[0],
                    score.retrains,
                    score.mean_quality,
                    0.0,
                )
            )
        else:
            runs.append(run_one(trace, trace.name, policy, job[2], best))
    return job, ratio_of(trace), runs, sum(action > 0 for action in best[1])


def measure(
    policies: Sequence[str], per_family: int, workers: int, progress: Callable[[int, int], None]
) -> list[tuple[Job, float, list[Run], int]]:
    """Run everything; in the order of the jobs."""
    jobs = jobs_of(per_family)
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for result in pool.map(run_job, jobs, [policies] * len(jobs), chunksize=4):
            results.append(result)
            progress(len(results), len(jobs))
    return results


def summary(results: Sequence[tuple[Job, float, list[Run], int]]) -> dict[str, Any]:
    """Per policy: over everything generated, per family, per bucket; gap closed against the best rule."""
    families = [job[0] for job, *_ in results]
    ratios = np.array([ratio for _, ratio, *_ in results])
    buckets = [BUCKETS[int(np.searchsorted(EDGES, ratio, side="right"))] for ratio in ratios]
    planned = np.array([count for *_, count in results])
    generated = np.array([family != "real" for family in families])
    policies = [run.policy for run in results[0][2]]
    document: dict[str, Any] = {"traces": len(results), "policies": {}}
    for index, policy in enumerate(policies):
        runs = [result[2][index] for result in results]
        values = np.array([run.ratio for run in runs])
        retrains = np.array([run.retrains for run in runs])
        quality = np.array([run.mean_quality for run in runs])

        def part(mask: Any) -> dict[str, Any]:
            chosen = values[mask]  # noqa: B023
            strata = [family for family, kept in zip(families, mask, strict=True) if kept]
            return {
                "mean": float(chosen.mean()),
                "iqm": float(interquartile_mean(chosen)),
                "interval": bootstrap(chosen, strata),
                "retrains": float(retrains[mask].mean()),  # noqa: B023
                "oracle_retrains": float(planned[mask].mean()),
                "quality": float(quality[mask].mean()),  # noqa: B023
                "traces": int(mask.sum()),
            }

        labels, names = np.array(families), np.array(buckets)
        document["policies"][policy] = {
            "all": part(generated),
            "families": {family: part(labels == family) for family in dict.fromkeys(families)},
            "buckets": {bucket: part(generated & (names == bucket)) for bucket in BUCKETS if (names == bucket).any()},
            "microseconds": 1e6 * float(np.mean([run.seconds_per_decision for run in runs])),
        }
    rules = {p: v["all"]["mean"] for p, v in document["policies"].items() if p in RIVALS}
    if rules:
        best = min(rules, key=lambda name: rules[name])
        document["best_rule"] = best
        for entry in document["policies"].values():
            entry["gap_closed"] = (rules[best] - entry["all"]["mean"]) / (rules[best] - 1.0)
    return document


def show(document: dict[str, Any]) -> None:
    """The tables in Markdown, best policy first."""
    policies = sorted(document["policies"].items(), key=lambda item: item[1]["all"]["mean"])
    first = next(iter(policies))[1]
    print("| policy | mean J/J* | interval | IQM | interval | retrains | quality | gap closed | µs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, entry in policies:
        whole = entry["all"]
        mean, iqm = whole["interval"]["mean"], whole["interval"]["iqm"]
        print(
            f"| {name} | {whole['mean']:.3f} | {mean[0]:.3f}-{mean[1]:.3f} | {whole['iqm']:.3f} | "
            f"{iqm[0]:.3f}-{iqm[1]:.3f} | {whole['retrains']:.2f} | {whole['quality']:.3f} | "
            f"{entry.get('gap_closed', 0.0):.0%} | {entry['microseconds']:.0f} |"
        )
    print(f"\nThe oracle retrains {first['all']['oracle_retrains']:.2f} times a trace.")
    for key, title in (("families", "family (mean J/J*)"), ("buckets", "cost of a retrain, in points x steps")):
        columns = list(first[key])
        marked = [f"{c}{'*' if c in HELD_OUT else ''} ({first[key][c]['traces']})" for c in columns]
        print(f"\n{title}\n\n| policy | " + " | ".join(marked) + " |")
        print("|---" * (len(columns) + 1) + "|")
        for name, entry in policies:
            print(f"| {name} | " + " | ".join(f"{entry[key][c]['mean']:.3f}" for c in columns) + " |")
    print("\nretrains per trace, oracle's in the last row\n\n| policy | " + " | ".join(first["families"]) + " |")
    print("|---" * (len(first["families"]) + 1) + "|")
    for name, entry in policies:
        print(f"| {name} | " + " | ".join(f"{part['retrains']:.2f}" for part in entry["families"].values()) + " |")
    print("| oracle | " + " | ".join(f"{part['oracle_retrains']:.2f}" for part in first["families"].values()) + " |")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=40)
    parser.add_argument("--policy", action="append", help="default: every fast rule, ppo, ppo-paper")
    parser.add_argument("--slow", action="store_true", help="with the rivals that take seconds a trace")
    parser.add_argument("--ablations", action="store_true", help="ppo with one thing taken away, each")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    default = [*(name for name in RIVALS if args.slow or name not in SLOW), "ppo", "ppo-paper"]
    policies = args.policy or default
    if args.ablations:
        policies = [*policies, *(f"ppo@{ablation}" for ablation in ABLATIONS)]
    for policy in policies:
        check_policy(policy.partition("@")[0])
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    def progress(done: int, of: int) -> None:
        if done % 20 == 0 or done == of:
            print(f"{done}/{of} traces", file=sys.stderr, flush=True)

    document = summary(measure(policies, args.per_family, args.workers, progress))
    show(document)
    if args.json:
        args.json.write_text(json.dumps(document))


if __name__ == "__main__":
    main()
