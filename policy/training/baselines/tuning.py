"""Tune every rule per cost ratio on training traces: `python -m policy.training.baselines.tuning` writes tuned.json.

Each rule is run over every training trace with every point of its grid; per bucket of cost ratios the point of least
mean J/J* wins. The traces come from the training families and from seeds that nothing is scored on.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.rules.tuned import TUNED_FILE, bucket_of, load
from policy.training.baselines.registry import make
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.generators import FAMILIES, generate
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace

#: bucket edges, in units of `one point of quality for one step`
EDGES: Final = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
#: first seed of the traces that rules are tuned on
FIRST_SEED: Final = 700_000
#: families of those traces
TUNED_ON: Final = (*FAMILIES, "turnover")

#: parameters under which a rule never fires; its J/J* is that of `never`, so it need not be replayed
SILENT: Final[dict[str, dict[str, float]]] = {
    "threshold": {"drop": 9.0, "window": 4},
    "page-hinkley": {"limit": 1e9, "slack": 0.0},
    "cusum": {"limit": 1e9, "slack": 0.0, "window": 3},
    "regret": {"k": 1e9, "window": 4},
    "modyn": {"k": 0.0, "window": 4},
}

_PERIODS = (0, 6, 9, 13, 18, 25, 35, 50, 70, 100, 140)
GRIDS: Final[dict[str, dict[str, tuple[float, ...]]]] = {
    "never": {},
    "periodic": {"period": _PERIODS},
    "cara-p": {"phi": _PERIODS, "offset": (0, 6, 12)},
    "threshold": {"drop": (0.03, 0.05, 0.07, 0.1, 0.14, 0.19, 0.26, 0.35, 0.5), "window": (2, 4, 8)},
    "adwin": {"delta": (1e-6, 1e-4, 0.002, 0.02, 0.1, 0.3, 0.6, 0.9)},
    "kswin": {"alpha": (1e-7, 1e-5, 1e-3, 0.01, 0.05), "recent": (6, 12), "window": (36,)},
    "page-hinkley": {"limit": (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0), "slack": (0.0, 0.005, 0.02, 0.05)},
    "cusum": {
        "limit": (0.2, 0.4, 0.8, 1.5, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0),
        "slack": (0.0, 0.02, 0.05, 0.1),
        "window": (3, 6),
    },
    "cara-t": {"tau": (0.05, 0.08, 0.12, 0.16, 0.2, 0.26, 0.33, 0.42, 0.55, 9.0), "window": (2, 4)},
    "cara-ct": {"tau": (0.3, 0.6, 1.0, 1.6, 2.5, 4.0, 6.0, 10.0, 16.0, 25.0, 1e9), "window": (2, 4)},
    "regret": {"k": (0.15, 0.2, 0.27, 0.36, 0.48, 0.65, 0.85, 1.1, 1.5, 2.0, 3.0, 5.0), "window": (2, 4, 8)},
    "amuse": {"cut": (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)},
    "modyn": {"k": (0.003, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.35, 0.6, 1.0), "window": (2, 4, 8)},
}


def grid_of(rule: str) -> list[dict[str, float]]:
    """Every point of a rule's grid."""
    grid = GRIDS[rule]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def ratio_of(trace: Trace) -> float:
    """Mean cheapest retrain in units of `one point of quality for one step`; the rules see its running mean."""
    return float(trace.job_usd.min(axis=1).mean()) / (trace.value_usd_per_quality_hour * trace.step_minutes / 60.0)


def score_trace(family: str, seed: int, rules: Sequence[str]) -> tuple[float, dict[str, list[float]]]:
    """(cost ratio, rule -> J/J* at each point of its grid) of one training trace."""
    trace = generate(family, seed)
    best, _ = optimal_plan(trace)
    scores = {
        rule: [run_cost(trace, replay(trace, make(rule, **point), seed)).cost_usd / best for point in grid_of(rule)]
        for rule in rules
    }
    return ratio_of(trace), scores


def tune(per_family: int, workers: int, chosen: Sequence[str], before: dict[str, Any]) -> dict[str, Any]:
    """The document that goes into tuned.json. Rules that are not `chosen` keep what `before` says."""
    jobs = [(family, FIRST_SEED + k, chosen) for k in range(per_family) for family in TUNED_ON]
    results: list[tuple[float, dict[str, list[float]]]] = []
    begin = time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        for result in pool.map(score_trace, *zip(*jobs, strict=True)):
            results.append(result)
            if len(results) % 20 == 0:
                left = (time.monotonic() - begin) / len(results) * (len(jobs) - len(results))
                print(f"{len(results)}/{len(jobs)} traces, {left / 60:.1f} minutes left", flush=True)
    buckets = np.array([bucket_of(ratio, EDGES) for ratio, _ in results])
    rules: dict[str, list[dict[str, float]]] = {}
    scores: dict[str, list[float]] = {}
    for rule in GRIDS:
        if rule not in chosen:
            rules[rule], scores[rule] = before["rules"][rule], before["mean_ratio"][rule]
            continue
        table = np.array([result[rule] for _, result in results])  # (traces, points)
        rules[rule], scores[rule] = [], []
        for means in _bucket_means(table, buckets):
            rules[rule].append(grid_of(rule)[int(np.argmin(means))])
            scores[rule].append(round(float(means.min()), 4))
    for rule, silent in SILENT.items():
        for bucket, nothing in enumerate(scores["never"]):
            if scores[rule][bucket] > nothing:
                rules[rule][bucket], scores[rule][bucket] = silent, nothing
    # the live service falls back to the best rule: a plain one, not another network
    plain = [rule for rule in GRIDS if rule != "amuse"]
    best = [min(plain, key=lambda rule: scores[rule][bucket]) for bucket in range(len(EDGES) + 1)]
    return {
        "command": f"python -m policy.training.baselines.tuning --per-family {per_family}",
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "traces": len(jobs),
        "edges": EDGES,
        "best": best,
        "rules": rules,
        "mean_ratio": scores,
    }


def _bucket_means(table: np.ndarray[Any, Any], buckets: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Mean over the traces of each bucket; the neighbours count a quarter, so that one odd trace decides less."""
    for bucket in range(len(EDGES) + 1):
        weight = np.where(buckets == bucket, 1.0, np.where(abs(buckets - bucket) == 1, 0.25, 0.0))
        yield (table * weight[:, None]).sum(axis=0) / weight.sum()


def main() -> None:
    """Tune and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-family", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rules", nargs="+", choices=sorted(GRIDS), default=list(GRIDS), help="the others stay")
    parser.add_argument("--out", type=Path, default=TUNED_FILE)
    args = parser.parse_args()
    document = tune(args.per_family, args.workers, args.rules, load())
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    for rule, means in document["mean_ratio"].items():
        print(f"{rule:14s}", *(f"{mean:7.3f}" for mean in means))


if __name__ == "__main__":
    main()
