"""The source paper's own setting: 60-second steps, four hours, static every 15 minutes, its costs of a retrain.

    python -m benchmarks.policy.paper_setting [--per-family 10] [--policy NAME|FILE.onnx]... [--json FILE]

The paper's reward per step is quality less 0.045 for a retrain on AWS and 0.038 on Azure: a retrain costs as much as
four hundredths of a point of quality for one minute. That price is what decides here: it is paid back by one minute
of a quality 0.04 higher. `--price-factor` multiplies it, to show where fewer retrains begin to pay.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.training.baselines.registry import decider_for
from policy.training.evaluation.backtest import OPTIMAL, run_one
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.generators import FAMILIES, HELD_OUT, generate
from policy.training.simulator.trace import Trace

STEPS: Final = 240
COST_AWS: Final = 0.045
COST_AZURE: Final = 0.038
#: minutes that one fine-tuning takes on either cloud
TRAIN_MINUTES: Final = 4.0
FIRST_SEED: Final = 950_000


def paper_trace(family: str, seed: int, price_factor: float) -> Trace:
    """Four hours of a drift family in 60-second steps; a point of quality for a step is worth one unit."""
    hours = TRAIN_MINUTES / 60.0
    price = np.array([COST_AWS, COST_AZURE]) * price_factor / hours
    return replace(
        generate(family, seed, steps=STEPS),
        step_minutes=1.0,
        value_usd_per_quality_hour=60.0,
        train_hours=np.full(2, hours - 1e-7, dtype=np.float32),
        price_usd_per_hour=np.tile(price.astype(np.float32), (STEPS, 1)),
    )


def measure(policies: list[str], per_family: int, price_factor: float) -> list[dict[str, Any]]:
    """One row per family and policy, means over its traces."""
    rows = []
    for family in (*FAMILIES, *HELD_OUT):
        traces = [paper_trace(family, FIRST_SEED + k, price_factor) for k in range(per_family)]
        best = [optimal_plan(trace) for trace in traces]
        for policy in policies:
            runs = [
                run_one(t, t.name, policy, k, b, decider_for) for k, (t, b) in enumerate(zip(traces, best, strict=True))
            ]
            bleu = [
                float(t.bleu[run_cost(t, run.decisions).serving, np.arange(STEPS)].mean())
                for t, run in zip(traces, runs, strict=True)
            ]
            reward = [1.0 - run.cost_usd / STEPS for run in runs]
            rows.append(
                {
                    "family": family,
                    "policy": policy,
                    "retrains": float(np.mean([run.retrains for run in runs])),
                    "bleu1": float(np.mean(bleu)),
                    "reward": float(np.mean(reward)),
                    "ratio": float(np.mean([run.ratio for run in runs])),
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table in Markdown, against static."""
    static = {row["family"]: row for row in rows if row["policy"] == "static"}
    print("| family | policy | retrains | fewer than static | BLEU-1 | over static | reward a step | J/J* |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        base = static[row["family"]]
        fewer = 1.0 - row["retrains"] / base["retrains"]
        print(
            f"| {row['family']} | {row['policy']} | {row['retrains']:.1f} | {fewer:.0%} | {row['bleu1']:.3f} | "
            f"{row['bleu1'] - base['bleu1']:+.3f} | {row['reward']:.3f} | {row['ratio']:.3f} |"
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=10)
    parser.add_argument("--policy", action="append")
    parser.add_argument("--price-factor", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    policies = ["static", *(args.policy or ["never", "regret", "ppo-paper", "ppo", OPTIMAL])]
    rows = measure(policies, args.per_family, args.price_factor)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
