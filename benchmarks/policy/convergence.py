"""Does training converge, does it do so from every seed, and what does each stream bring?

    python -m benchmarks.policy.convergence [--steps 1500000] [--seeds 5] [--json FILE]

A short version of the recipe of the shipped policy (`--steps` instead of its steps, one round of traces), from each
seed; then, from seed 0, without each stream of the network in turn, and with the six numbers of the source paper. Each
run is scored now and then on the same 300 traces that it was not trained on: mean J/J* of the most probable action.
"Spread late" is the standard deviation of a run's last three scores: how much it still oscillates. "Changed" is the
share of decisions that differ between a run's last two scores: whether the policy itself still swings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.policies import NetworkPolicy
from policy.training.ppo.evaluate import ratios
from policy.training.ppo.networks import STREAMS
from policy.training.ppo.train import PRESETS, Recipe, random_rollout, train
from policy.training.simulator.dynamics import Dynamics, Rules
from policy.training.simulator.pool import Pool, training_pool

#: seed of the pool that every run is scored on; training never uses it
JUDGES: Final = 4_000
SCORES: Final = 8  # a run is scored about this often


def recipe_of(variant: str, seed: int, steps: int) -> Recipe:
    """The short recipe of a variant: "full", "paper", or "without-STREAM"."""
    short = replace(PRESETS["ppo"], seed=seed, steps=steps, rounds=1, traces=1200, num_envs=256, cloning_steps=200_000)
    full = replace(short, iteration_pools=0)  # PPO alone
    if variant == "paper":
        return replace(full, observation="paper")
    return replace(full, without=(variant.removeprefix("without-"),)) if variant != "full" else full


def run(variant: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one variant; its scores on the way."""
    recipe = recipe_of(variant, seed, steps)
    judges = training_pool(300, JUDGES)
    sample = random_rollout(Dynamics(judges, 100, Rules(recipe.observation), seed=JUDGES), 99, JUDGES)
    curve: list[tuple[int, float]] = []
    chosen: list[np.ndarray] = []

    def score(file: Path, done: int) -> None:
        network = NetworkPolicy(file, variant)
        curve.append((done, _mean_ratio(network, recipe, judges)))
        chosen.append(network.most_probable(sample))

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "policy.onnx"

        def progress(phase: str, done: int, total: int) -> None:
            due = len(curve) + 1
            if phase == "ppo" and out.exists() and done >= due * total / SCORES:
                score(out, done)

        train(recipe, out, progress)
        score(out, steps)
    changed = float((chosen[-1] != chosen[-2]).mean())
    late = [value for _, value in curve[-4:-1]]  # before the weights are averaged
    return {
        "variant": variant,
        "seed": seed,
        "curve": curve,
        "final": curve[-1][1],
        "spread_late": float(np.std(late)),
        "changed": changed,
    }


def _mean_ratio(network: NetworkPolicy, recipe: Recipe, judges: Pool) -> float:
    return float(ratios(judges, recipe.observation, network.most_probable, JUDGES)[0].mean())


def show(results: list[dict[str, Any]]) -> None:
    """The table, in Markdown."""
    print(
        "| variant | seed | "
        + " | ".join(f"{k}/{SCORES}" for k in range(1, SCORES))
        + " | end | spread late | changed |"
    )
    print("|---" * (SCORES + 4) + "|")
    for result in results:
        points = [f"{value:.3f}" for _, value in result["curve"]]
        points = points[:-1][: SCORES - 1] + [""] * (SCORES - len(points)) + points[-1:]
        print(
            f"| {result['variant']} | {result['seed']} | {' | '.join(points)} "
            f"| {result['spread_late']:.4f} | {result['changed']:.1%} |"
        )
    full = [result["final"] for result in results if result["variant"] == "full"]
    mean, spread = np.mean(full), np.std(full)
    print(f"\nfull, {len(full)} seeds: {min(full):.3f} to {max(full):.3f}, mean {mean:.3f}, sd {spread:.4f}")


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_500_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    jobs = [("full", seed) for seed in range(args.seeds)]
    jobs += [(variant, 0) for variant in (*(f"without-{stream}" for stream in STREAMS), "paper")]
    results = []
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(run, *zip(*jobs, strict=True), [args.steps] * len(jobs)):
            results.append(result)
            print(f"{len(results)}/{len(jobs)}: {result['variant']} {result['final']:.3f}", file=sys.stderr, flush=True)
    show(results)
    if args.json:
        args.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
