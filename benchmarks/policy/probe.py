"""What a shadow probe is worth: the shipped network alone, and with probes at several prices, noises and limits.

    python -m benchmarks.policy.probe [--per-family 60] [--policy NAME|FILE.onnx] [--grid]

The first table shows the probe of `ppo-probe` and what would change if it were free, exact or both; `--grid` shows the
limits that `policy.training.evaluation.probe` was set by. All rows meet the same validation traces (ten families, seeds of
their own) under the same measurement noise.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

import numpy as np

from benchmarks.policy.validation import network_of
from policy.history import Floats
from policy.policies import NetworkPolicy
from policy.training.evaluation.probe import HORIZON, NOISE_SD, PRICE_SHARE, REST, UNSURE, doubted, pays
from policy.training.ppo.evaluate import scoring_rules
from policy.training.simulator.dynamics import Dynamics
from policy.training.simulator.generators import FAMILIES, generate
from policy.training.simulator.pool import Pool
from shared.errors import OpportuneError

#: the first trace of every family; validation traces, none of `benchmarks.policy.validation`
FIRST_SEED: Final = 502_000_000
LIMITS: Final = ((0.05, 0.9), (0.15, 0.5), (0.3, 0.7), (0.5, 0.7), (0.5, 0.85), (0.5, 0.95))
HORIZONS: Final = (10.0, 20.0, 40.0, 80.0)

Score = tuple[Floats, float, float]  # J/J* of every trace, probes and retrains per trace


def live(
    pool: Pool,
    network: NetworkPolicy,
    price_share: float = PRICE_SHARE,
    noise_sd: float = NOISE_SD,
    unsure: tuple[float, float] = UNSURE,
    horizon: float = HORIZON,
) -> Score:
    """Every trace of the pool at once, decided as `policy.training.evaluation.probe.ProbingPolicy` does. `unsure` empty: alone."""
    env, rng = Dynamics(pool, len(pool), scoring_rules(), FIRST_SEED), np.random.default_rng(1)
    observed = env.reset()
    spent, probes, retrains = (np.zeros(len(pool)) for _ in range(3))
    last, running, t = np.full(len(pool), -REST), np.ones(len(pool), dtype=bool), 0
    while running.any():
        chances = network.probabilities_of(observed)
        action, wish = chances.argmax(axis=1), 1.0 - chances[:, 0]
        free = ~env.in_flight() & running
        open_question = free & doubted(wish, unsure)
        asked = open_question & (t - last >= REST)
        serving, fresh = env.hidden()[:, :2].T
        cost = env.tracker.cost.min(axis=1)
        worth = pays(fresh - serving + rng.normal(0.0, noise_sd, len(pool)), cost, horizon)
        action = np.where(open_question, np.where(asked & worth, 1 + chances[:, 1:].argmax(axis=1), 0), action)
        action = np.where(free, action, 0)
        outcome = env.step(action)
        spent += np.where(running, outcome.cost_usd, 0.0) + asked * price_share * cost * env.tracker.step_value
        probes += asked
        retrains += action > 0
        last = np.where(asked, t, last)
        running &= ~outcome.terminated
        observed, t = outcome.observation, t + 1
    return spent / pool.optimum_usd, float(probes.mean()), float(retrains.mean())


def row(name: str, score: Score, alone: Floats) -> str:
    """A line of the table: the difference is paired, with its standard error."""
    ratio, probes, retrains = score
    paired = ratio - alone
    error = paired.std() / np.sqrt(len(paired))
    return f"| {name} | {ratio.mean():.4f} | {paired.mean():+.4f} ± {error:.4f} | {probes:.2f} | {retrains:.2f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=60)
    parser.add_argument("--policy", default="ppo")
    parser.add_argument("--grid", action="store_true", help="other limits and horizons as well")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        network = network_of(args.policy)
    except OpportuneError as error:
        parser.error(str(error))
    pool = Pool(generate(family, FIRST_SEED + k) for family in FAMILIES for k in range(args.per_family))
    print("| decided by | mean J/J* | against the network alone | probes | retrains |\n|---|---|---|---|---|")
    alone = live(pool, network, unsure=(1.0, 1.0))
    print(row(f"{args.policy} alone", alone, alone[0]), flush=True)
    for price, noise in ((PRICE_SHARE, NOISE_SD), (PRICE_SHARE, 0.0), (0.0, NOISE_SD), (0.0, 0.0)):
        score = live(pool, network, price, noise)
        print(row(f"a probe for {price:g} of a retrain, sd {noise:g}", score, alone[0]), flush=True)
    for unsure in LIMITS if args.grid else ():
        for horizon in HORIZONS:
            score = live(pool, network, unsure=unsure, horizon=horizon)
            print(row(f"asked from {unsure[0]:g} to {unsure[1]:g}, {horizon:g} steps", score, alone[0]), flush=True)
            print(f"{unsure} {horizon}", file=sys.stderr)


if __name__ == "__main__":
    main()
