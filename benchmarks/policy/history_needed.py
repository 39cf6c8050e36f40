"""How much history does the decay model need? Known worlds, histories of growing length, error of the answer.

    python -m benchmarks.policy.history_needed [--per-family 4] [--json FILE]

Each trace is rolled out with a retrain every 30 steps (its metrics are the history); the decay model is fitted to
its first H steps and asked what the tuned rule and the optimum would have cost. The true answer is the same policy on
the true matrix. Error: |predicted - true| cost over true cost; coverage: how often the interval holds the true saving.

A second table asks whether the shipped network needs a history of the service at all: J/J* over the first H steps of a
service nobody knows, beside baselines that are fitted to the first quarter of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.history import History, Retrain
from policy.training.baselines.registry import decider_for, make
from policy.training.evaluation.backtest import OPTIMAL, run_one
from policy.training.evaluation.own_history import answer
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.generators import FAMILIES, generate
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace

LENGTHS: Final = (48, 72, 96, 144, 192)
FIRST_SEED: Final = 970_000
PERIOD: Final = 30
POLICIES: Final = ("rule", OPTIMAL)


def rolled_out(trace: Trace, seed: int) -> History:
    """What the metrics of this service showed while it was retrained every PERIOD steps."""
    decisions = replay(trace, make("periodic", period=PERIOD), seed)
    serving = run_cost(trace, decisions).serving
    steps = np.arange(trace.steps)
    rng = np.random.default_rng(seed)
    noise = trace.noise_sd * np.sqrt(2.0) * rng.standard_normal((2, trace.steps))
    retrains = []
    for t, action in enumerate(decisions):
        if action:
            live = t + trace.delays[action - 1]
            usd = float(trace.job_usd[t, action - 1])
            retrains.append(Retrain(t, action - 1, live if live < trace.steps else None, usd))
    return History(
        step_minutes=trace.step_minutes,
        value_usd_per_quality_hour=trace.value_usd_per_quality_hour,
        bleu=trace.bleu[serving, steps] + noise[0],
        accuracy=trace.accuracy[serving, steps] + noise[1],
        request_rate_rps=trace.request_rate_rps.astype(np.float64),
        latency_s=trace.latency_s.astype(np.float64),
        cpu=trace.cpu.astype(np.float64),
        memory=trace.memory.astype(np.float64),
        price_usd_per_hour=trace.price_usd_per_hour.astype(np.float64),
        train_hours=trace.train_hours.astype(np.float64),
        retrains=tuple(retrains),
        in_flight=False,
    )


def true_cost(trace: Trace, policy: str) -> float:
    """What the policy really costs on this world."""
    if policy == OPTIMAL:
        return optimal_plan(trace)[0]
    return run_cost(trace, replay(trace, decider_for(policy, trace))).cost_usd


def measure(per_family: int, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row per length, means over traces."""
    rows = []
    for length in lengths:
        errors: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        held: dict[str, list[bool]] = {policy: [] for policy in POLICIES}
        for family in FAMILIES:
            for k in range(per_family):
                trace = generate(family, FIRST_SEED + k, steps=length)
                found = answer(rolled_out(trace, k), POLICIES, decider_for, seed=k)
                yours = run_cost(trace, replay(trace, make("periodic", period=PERIOD), k)).cost_usd
                for one in found.answers:
                    truth = true_cost(trace, one.policy)
                    errors[one.policy].append(abs(one.cost_usd - truth) / truth)
                    slack = 0.02 * truth
                    inside = one.saved_low_usd - slack <= yours - truth <= one.saved_high_usd + slack
                    held[one.policy].append(inside)
        row: dict[str, Any] = {"steps": length}
        for policy in POLICIES:
            row[policy] = {"median_error": float(np.median(errors[policy])), "coverage": float(np.mean(held[policy]))}
        rows.append(row)
    return rows


def cold_start(per_family: int, lengths: tuple[int, ...], policies: Sequence[str]) -> list[dict[str, Any]]:
    """Mean J/J* over the first H steps of unknown services, one row per length."""
    rows = []
    for length in lengths:
        ratios: dict[str, list[float]] = {policy: [] for policy in policies}
        for family in FAMILIES:
            for k in range(per_family):
                trace = generate(family, FIRST_SEED + k, steps=length)
                best = optimal_plan(trace)
                for policy in policies:
                    ratios[policy].append(run_one(trace, trace.name, policy, k, best, decider_for).ratio)
        rows.append({"steps": length, **{policy: float(np.mean(values)) for policy, values in ratios.items()}})
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = measure(args.per_family, tuple(args.lengths))
    print("| steps | rule: median error | holds the truth | optimum: median error | holds the truth |")
    print("|---|---|---|---|---|")
    for row in rows:
        cells = " | ".join(f"{row[p]['median_error']:.1%} | {row[p]['coverage']:.0%}" for p in POLICIES)
        print(f"| {row['steps']} | {cells} |")
    policies = ("ppo", "rule", "retrainopt-learned", "never")
    cold = cold_start(args.per_family, tuple(args.lengths), policies)
    print("\n| steps | " + " | ".join(policies) + " |\n" + "|---" * (len(policies) + 1) + "|")
    for row in cold:
        print(f"| {row['steps']} | " + " | ".join(f"{row[policy]:.3f}" for policy in policies) + " |")
    if args.json:
        args.json.write_text(json.dumps({"needed": rows, "cold_start": cold}))


if __name__ == "__main__":
    main()
