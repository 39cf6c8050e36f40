"""Retrain policies over drift families and cost ratios: J/J*, retrains, quality.

    python -m benchmarks.policy.decision [--per-family 40] [--family NAME]... [--policy NAME|FILE.onnx]...
                                         [--matrices FOLDER] [--ablations] [--json FILE] [--add EARLIER.json]

The traces are the project's own test set (seeds that nothing is trained or tuned on; families marked * are not
trained on at all), the two families that are made otherwise (`turnover` is shaped after the real matrices, `textbook`
is plain decay), and the real matrices, each at three prices; the last three are in no mean over everything.
`periodic@warm-up` (and cara-t, cara-ct, cara-p) is the rule tuned on the first quarter of the trace it runs on;
`ppo@cheapest` and the like are ablations. Intervals are 95 %, stratified bootstrap over traces. `--per-family 0` runs
the real matrices alone, `--matrices FOLDER` those of a folder instead of the shipped ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.policy.ablations import ABLATIONS, Ablated
from benchmarks.policy.intervals import bootstrap, interquartile_mean
from policy.history import Decider
from policy.policies import NetworkPolicy, load_policy
from policy.training.baselines.registry import BASELINES, NETWORKS, check_policy, decider_for, make
from policy.training.baselines.tuning import ratio_of
from policy.training.baselines.warm_up import GRIDS, WarmedUp, warm_up_of
from policy.training.evaluation.backtest import run_one
from policy.training.simulator.cost import RunCost, optimal_plan, run_cost
from policy.training.simulator.generators import APART, FAMILIES, HELD_OUT, generate
from policy.training.simulator.lockstep import replay_many
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace, load
from shared.errors import InvalidInputError, OpportuneError

FIRST_SEED: Final = 900_000
REAL: Final = Path(__file__).parents[2] / "policy" / "training" / "simulator" / "real"
#: groups that are no part of the means over everything
SHOWN_APART: Final = ("real", *APART)
EVERY: Final = (*FAMILIES, *HELD_OUT, *APART)
#: cost of a retrain on a real matrix, in units of one point of quality for one step
REAL_RATIOS: Final = (0.5, 2.0, 8.0)
#: reported buckets of cost ratios
EDGES: Final = (2.0, 8.0, 30.0)
BUCKETS: Final = ("below 2", "2 to 8", "8 to 30", "above 30")
SLOW: Final = ("upf",)
#: traces that one worker takes at a time
CHUNK: Final = 20
#: the shipped policy, which the others are compared with
OURS: Final = "ppo"

Job = tuple[str, str, int]  # (family, file or "", seed)


@dataclass(frozen=True)
class Row:
    """What was measured on one trace: policy -> [J/J*, retrains, mean quality, microseconds per decision]."""

    family: str
    file: str
    seed: int
    cost_ratio: float
    oracle_retrains: int
    runs: dict[str, list[float]]


def jobs_of(per_family: int, families: Sequence[str], matrices: Path = REAL) -> list[Job]:
    """The test set, then the real matrices; of some families alone, those.

    Raises:
        InvalidInputError: no matrix in that folder.
    """
    generated = [(family, "", FIRST_SEED + k) for family in families for k in range(per_family)]
    if tuple(families) != EVERY:
        return generated
    files = sorted(matrices.glob("*.npz"))
    if not files:
        raise InvalidInputError(f"--matrices {matrices}: no .npz there")
    return [*generated, *(("real", str(file), index) for file in files for index in range(len(REAL_RATIOS)))]


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


def variant_of(name: str, variant: str, trace: Trace) -> Decider:
    """`@warm-up`: a rule tuned on the first quarter of this trace instead of on training traces; else an ablation."""
    if variant == "warm-up":
        return WarmedUp(name, warm_up_of(trace), make)
    return Ablated(decider_for(name, trace), variant)


def run_jobs(jobs: Sequence[Job], policies: Sequence[str]) -> list[Row]:
    """Every policy on some traces."""
    traces = [trace_of(job) for job in jobs]
    optima = [optimal_plan(trace) for trace in traces]
    runs = runs_of(traces, [seed for _, _, seed in jobs], optima, policies)
    return [
        Row(job[0], Path(job[1]).name, job[2], ratio_of(trace), sum(a > 0 for a in best[1]), run)
        for job, trace, best, run in zip(jobs, traces, optima, runs, strict=True)
    ]


def runs_of(
    traces: Sequence[Trace],
    seeds: Sequence[int],
    optima: Sequence[tuple[float, tuple[int, ...]]],
    policies: Sequence[str],
) -> list[dict[str, list[float]]]:
    """`Row.runs` of every trace. Networks run on all of them at once; the first alone too, to be timed."""
    runs: list[dict[str, list[float]]] = [{} for _ in traces]
    for policy in policies:
        name, _, variant = policy.partition("@")
        network = network_of(name) if not variant else None
        if network is not None:
            decided = replay_many(traces, network, seeds)
            timed = run_one(traces[0], "", policy, seeds[0], optima[0], decider_for)
            for k, (trace, decisions) in enumerate(zip(traces, decided, strict=True)):
                micros = 1e6 * timed.seconds_per_decision if k == 0 else float("nan")
                runs[k][policy] = _entry(run_cost(trace, decisions), optima[k][0], micros)
            continue
        for k, (trace, seed) in enumerate(zip(traces, seeds, strict=True)):
            if variant:
                decisions = replay(trace, variant_of(name, variant, trace), seed)
                runs[k][policy] = _entry(run_cost(trace, decisions), optima[k][0], float("nan"))
            else:
                run = run_one(trace, trace.name, policy, seed, optima[k], decider_for)
                runs[k][policy] = [run.ratio, run.retrains, run.mean_quality, 1e6 * run.seconds_per_decision]
    return runs


def _entry(score: RunCost, optimum_usd: float, micros: float) -> list[float]:
    return [score.cost_usd / optimum_usd, score.retrains, score.mean_quality, micros]


def network_of(name: str) -> NetworkPolicy | None:
    """The multi-stream network of that name, which many traces can be replayed with at once; None: anything else."""
    if name in NETWORKS or name.endswith(".onnx"):
        policy = load_policy(name)
        if isinstance(policy, NetworkPolicy) and policy.observation == "multistream":
            return policy
    return None


def measure(
    policies: Sequence[str], jobs: Sequence[Job], workers: int, progress: Callable[[int, int], None]
) -> list[Row]:
    """Run everything; in the order of the jobs."""
    rows: list[Row] = []
    context = multiprocessing.get_context("spawn")
    chunks = [jobs[k : k + CHUNK] for k in range(0, len(jobs), CHUNK)]
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for done in pool.map(run_jobs, chunks, [policies] * len(chunks)):
            rows += done
            progress(len(rows), len(jobs))
    return rows


def rows_in(earlier: Path) -> list[dict[str, Any]]:
    """The rows of an earlier measurement.

    Raises:
        InvalidInputError: no such file, or it is not one that `--json` wrote.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(earlier.read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"--add {earlier}: not what --json wrote ({error})") from error
    return rows


def merged(rows: Sequence[Row], known_rows: Sequence[dict[str, Any]]) -> list[Row]:
    """The rows that an earlier measurement has too, with its runs added; what was measured now wins."""
    before = {(r["family"], r["file"], r["seed"]): r for r in known_rows}
    result = []
    for row in rows:
        known = before.get((row.family, row.file, row.seed))
        if known is None:
            continue
        if abs(known["cost_ratio"] - row.cost_ratio) > 1e-6 * row.cost_ratio:
            raise InvalidInputError("--add: was measured on other traces of these names; measure again")
        result.append(dataclasses.replace(row, runs={**known["runs"], **row.runs}))
    print(f"{len(result)} of {len(rows)} traces were measured before", file=sys.stderr)
    return result


def _groups(rows: Sequence[Row]) -> tuple[Any, Any, Any]:
    """Family and bucket of each row, and whether it counts in the means over everything."""
    families = np.array([row.family for row in rows])
    buckets = np.array([BUCKETS[int(np.searchsorted(EDGES, row.cost_ratio, side="right"))] for row in rows])
    return families, buckets, ~np.isin(families, SHOWN_APART)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Per policy: over everything generated, per family, per bucket; gap closed against the best rule."""
    families, buckets, generated = _groups(rows)
    planned = np.array([row.oracle_retrains for row in rows])
    if not generated.any():
        generated[:] = True  # --per-family 0: the real matrices alone
    table: dict[str, Any] = {}
    for policy in rows[0].runs:
        values, retrains, quality, micros = np.array([row.runs[policy] for row in rows], dtype=np.float64).T
        columns = (values, retrains, planned, quality)
        table[policy] = {
            "all": _part(generated, families, columns),
            "families": {family: _part(families == family, families, columns) for family in dict.fromkeys(families)},
            "buckets": {
                bucket: _part(generated & (buckets == bucket), families, columns)
                for bucket in BUCKETS
                if (generated & (buckets == bucket)).any()
            },
            "microseconds": float(np.nanmean(micros)) if np.isfinite(micros).any() else 0.0,
        }
    rules = {policy: entry["all"]["mean"] for policy, entry in table.items() if policy in BASELINES}
    if rules:
        best = min(rules, key=lambda name: rules[name])
        for entry in table.values():
            entry["gap_closed"] = (rules[best] - entry["all"]["mean"]) / (rules[best] - 1.0)
    return table


def duels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """`ppo` against the best rule of each family and bucket: means with intervals, and the paired difference.

    The same traces under the same noise carry both, so the difference is known better than either mean.
    """
    families, buckets, generated = _groups(rows)
    rules = [name for name in rows[0].runs if name in BASELINES]
    values = {name: np.array([row.runs[name][0] for row in rows]) for name in (OURS, *rules)}
    groups = [("all", generated)]
    groups += [(name, families == name) for name in dict.fromkeys(families)]
    groups += [(f"retrain costs {name}", generated & (buckets == name)) for name in BUCKETS]
    found = []
    for group, mask in groups:
        if not mask.any():
            continue
        strata = list(families[mask])
        best = min(rules, key=lambda name: float(values[name][mask].mean()))
        ours, theirs = values[OURS][mask], values[best][mask]
        found.append(
            {
                "group": group,
                "traces": int(mask.sum()),
                "ours": float(ours.mean()),
                "ours_interval": bootstrap(ours, strata)["mean"],
                "best": best,
                "theirs": float(theirs.mean()),
                "theirs_interval": bootstrap(theirs, strata)["mean"],
                "difference": float((ours - theirs).mean()),
                "difference_interval": bootstrap(ours - theirs, strata)["mean"],
            }
        )
    return found


def show_duels(found: Sequence[dict[str, Any]]) -> None:
    """The comparison in Markdown."""
    print(f"\n| traces | {OURS} | interval | best rule | its mean | interval | paired difference | interval |")
    print("|---|---|---|---|---|---|---|---|")
    for duel in found:
        ours, theirs, gap = (duel[f"{key}_interval"] for key in ("ours", "theirs", "difference"))
        print(
            f"| {duel['group']} ({duel['traces']}) | {duel['ours']:.3f} | {ours[0]:.3f}-{ours[1]:.3f} | {duel['best']} "
            f"| {duel['theirs']:.3f} | {theirs[0]:.3f}-{theirs[1]:.3f} "
            f"| {duel['difference']:+.4f} | {gap[0]:+.4f} to {gap[1]:+.4f} |"
        )


def _part(mask: Any, families: Any, columns: tuple[Any, Any, Any, Any]) -> dict[str, Any]:
    values, retrains, planned, quality = (column[mask] for column in columns)
    return {
        "mean": float(values.mean()),
        "iqm": float(interquartile_mean(values)),
        "interval": bootstrap(values, list(families[mask])),
        "retrains": float(retrains.mean()),
        "oracle_retrains": float(planned.mean()),
        "quality": float(quality.mean()),
        "traces": len(values),
    }


def show(table: dict[str, Any]) -> None:
    """The tables in Markdown, best policy first."""
    policies = sorted(table.items(), key=lambda item: item[1]["all"]["mean"])
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
    print(f"\nThe optimal plan retrains {first['all']['oracle_retrains']:.2f} times a trace.")
    for key, title in (("families", "family (mean J/J*)"), ("buckets", "cost of a retrain, in points x steps")):
        columns = list(first[key])
        marked = [f"{c}{'*' if c in HELD_OUT else ''} ({first[key][c]['traces']})" for c in columns]
        print(f"\n{title}\n\n| policy | " + " | ".join(marked) + " |")
        print("|---" * (len(columns) + 1) + "|")
        for name, entry in policies:
            print(f"| {name} | " + " | ".join(f"{entry[key][c]['mean']:.3f}" for c in columns) + " |")
    print(
        "\nretrains per trace, the optimal plan's in the last row\n\n| policy | " + " | ".join(first["families"]) + " |"
    )
    print("|---" * (len(first["families"]) + 1) + "|")
    for name, entry in policies:
        print(f"| {name} | " + " | ".join(f"{part['retrains']:.2f}" for part in entry["families"].values()) + " |")
    print("| oracle | " + " | ".join(f"{part['oracle_retrains']:.2f}" for part in first["families"].values()) + " |")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=40)
    parser.add_argument("--family", action="append", choices=EVERY, help="default: every one, and the real matrices")
    parser.add_argument("--matrices", type=Path, default=REAL, help="a folder of measured ones [the shipped]")
    parser.add_argument("--policy", action="append", help="default: every fast rule, ppo, ppo-paper")
    parser.add_argument("--slow", action="store_true", help="with the baselines that take seconds a trace")
    parser.add_argument("--ablations", action="store_true", help="ppo with one thing taken away, each")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--add", type=Path, help="JSON of an earlier run on the same traces: its policies too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    default = [*(name for name in BASELINES if args.slow or name not in SLOW), "ppo", "ppo-paper"]
    policies = args.policy or default
    if args.family and args.matrices != REAL:
        parser.error("--matrices and --family: some families alone go without matrices; give one of the two")
    if args.ablations:
        policies = [*policies, *(f"ppo@{ablation}" for ablation in ABLATIONS)]
    for policy in policies:
        name, _, variant = policy.partition("@")
        check_policy(name)
        if variant not in ("", *ABLATIONS) and not (variant == "warm-up" and name in GRIDS):
            parser.error(f"--policy {policy}: {variant} is not one of {', '.join(ABLATIONS)}, warm-up")
    earlier = rows_in(args.add) if args.add else []
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    def progress(done: int, of: int) -> None:
        print(f"{done}/{of} traces", file=sys.stderr, flush=True)

    rows = measure(policies, jobs_of(args.per_family, args.family or EVERY, args.matrices), args.workers, progress)
    if args.add:
        rows = merged(rows, earlier)
    table = summary(rows)
    show(table)
    found = duels(rows) if OURS in table and any(name in BASELINES for name in table) else []
    show_duels(found)
    if args.json:
        document = {"policies": table, "duels": found, "rows": [dataclasses.asdict(row) for row in rows]}
        args.json.write_text(json.dumps(document))


if __name__ == "__main__":
    try:
        main()
    except OpportuneError as error:
        sys.exit(f"decision: {error}")
