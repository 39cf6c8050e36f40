"""What not knowing the family costs: a network trained on one family alone, beside `never` and the shipped one.

    python -m benchmarks.policy.specialists [--families reverting seasonal transient] [--steps 4000000]

A service does not say which kind of drift it meets. A specialist need not find out: it has the shipped recipe (with
`--steps`, in one round) and traces of its family only. Where it is no better than `never`, nobody can be expected to
be; what it is better than the shipped network is the price of not knowing. All meet the same validation traces.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.policy.validation import FIRST_SEED, Score, network_of, score, traces_of
from policy.policies import NetworkPolicy
from policy.training.ppo.evaluate import ratios
from policy.training.ppo.train import PRESETS, train
from policy.training.simulator.generators import FAMILIES


def run(family: str, steps: int, per_family: int) -> tuple[float, Score, Score]:
    """Train the specialist of a family; the scores of never, it and the shipped network."""
    pool = traces_of(family, per_family)
    held, _ = ratios(pool, "multistream", lambda x: np.zeros(len(x), dtype=np.int64), FIRST_SEED)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "policy.onnx"
        train(replace(PRESETS["ppo"], families=(family,), steps=steps, rounds=1), out, lambda *_: None)
        special = score(NetworkPolicy(out, family), pool)
    return float(held.mean()), special, score(network_of("ppo"), pool)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--families", nargs="+", choices=tuple(FAMILIES), default=["reverting", "seasonal", "transient"]
    )
    parser.add_argument("--steps", type=int, default=4_000_000)
    parser.add_argument("--per-family", type=int, default=300)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| family | never | trained on it alone | retrains | ppo | retrains |\n|---|---|---|---|---|---|")
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        every = [args.steps] * len(args.families), [args.per_family] * len(args.families)
        for family, (held, special, ours) in zip(args.families, pool.map(run, args.families, *every), strict=True):
            cells = [f"{each.ratios.mean():.3f} | {each.times:.2f}×" for each in (special, ours)]
            print(f"| {family} | {held:.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
