"""Choose between trained policies: mean J/J* on validation traces, by family, and how often each retrains.

    python -m benchmarks.policy.validation [--per-family 300] [--window 8] NAME|FILE.onnx...

The traces are of the families that policies are trained on, from seeds that neither training nor the test set of
`benchmarks.policy.decision` uses: what a recipe or a seed is chosen by belongs here, so that the test set stays unseen.
All policies meet the same measurement noise. With `--window` they see what a live service measures: the mean over so
many steps, and nobody re-evaluates former models. A retrain count stands beside the optimum's as a factor. Of several
policies, the others are compared with the first on the same traces: mean difference and its standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats
from policy.policies import NetworkPolicy, load_policy
from policy.training.ppo.evaluate import ratios
from policy.training.simulator.dynamics import Observation
from policy.training.simulator.generators import APART, FAMILIES, generate
from policy.training.simulator.pool import Pool
from shared.errors import InvalidInputError, OpportuneError

#: the first validation trace of every family
FIRST_SEED: Final = 501_000_000
#: families whose traces come and go by themselves, where holding is best or nearly so
PASSING: Final = ("reverting", "transient")


class Score(NamedTuple):
    """Of one policy in one family: J/J* of every trace, and all its retrains over all of the optimum's."""

    ratios: Floats
    times: float


Scores = dict[str, Score]  # by family


def network_of(name: str) -> NetworkPolicy:
    """The network of that name or file.

    Raises:
        InvalidInputError: no such policy, or a rule.
    """
    policy = load_policy(name)
    if not isinstance(policy, NetworkPolicy):
        raise InvalidInputError(f"{name} is a rule; give a trained policy's name or .onnx file")
    return policy


def traces_of(family: str, count: int) -> Pool:
    """The first `count` validation traces of a family."""
    return Pool(generate(family, FIRST_SEED + k) for k in range(count))


def score(network: NetworkPolicy, pool: Pool, window: int | None = None) -> Score:
    """Score the most probable action of a network."""
    return score_of(network.most_probable, pool, network.metadata["observation"], window)


def score_of(
    act: Callable[[Floats], NDArray[np.int64]], pool: Pool, observation: Observation, window: int | None = None
) -> Score:
    """Score what maps observations (N, D) to actions (N,), under the noise that every policy meets here."""
    ratio, retrains = ratios(pool, observation, act, FIRST_SEED, window)
    return Score(ratio, float(retrains.sum() / max(np.count_nonzero(pool.best_action), 1)))


def validate(name: str, per_family: int, window: int | None = None) -> Scores:
    """Score one trained policy."""
    network = network_of(name)
    return {family: score(network, traces_of(family, per_family), window) for family in (*FAMILIES, *APART)}


def paired(scores: Scores, first: Scores, families: Collection[str]) -> tuple[float, float]:
    """(mean difference in J/J* from the first, its standard error) on the same traces of some families."""
    by_family = [scores[family].ratios - first[family].ratios for family in families]
    error = np.sqrt(np.sum([differences.var() / len(differences) for differences in by_family])) / len(families)
    return float(np.mean([differences.mean() for differences in by_family])), float(error)


def show(results: dict[str, Scores]) -> None:
    """The tables, in Markdown."""
    every = (*FAMILIES, *APART)
    groups = (FAMILIES, tuple(family for family in FAMILIES if family not in PASSING))
    titles = f"ten families | without {' and '.join(PASSING)} | {' | '.join(every)} |\n{'|---' * (3 + len(every))}|"
    print(f"| policy | {titles}")
    for name, scores in results.items():
        means = [np.mean([scores[family].ratios.mean() for family in group]) for group in groups]
        cells = [f"{mean:.4f}" for mean in means]
        cells += [f"{score.ratios.mean():.3f} ({score.times:.2f}×)" for score in scores.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    first, *others = results
    if others:
        print(f"\n| against {first} | {titles}")
    for name in others:
        differences = [paired(results[name], results[first], group) for group in (*groups, *zip(every))]
        print(f"| {name} | {' | '.join(f'{mean:+.4f} ± {error:.4f}' for mean, error in differences)} |")


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="+", metavar="NAME|FILE.onnx")
    parser.add_argument("--per-family", type=int, default=300)
    parser.add_argument("--window", type=int, help="steps that a measurement is the mean of, nothing re-evaluated")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if args.window is not None and args.window < 1:
        parser.error(f"--window {args.window}: at least one step")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        for name in args.policies:
            network_of(name)
    except OpportuneError as error:
        parser.error(str(error))
    results: dict[str, Scores] = {}
    with ProcessPoolExecutor(args.workers) as pool:
        every = len(args.policies)
        scored = pool.map(validate, args.policies, [args.per_family] * every, [args.window] * every)
        for name, scores in zip(args.policies, scored, strict=True):
            results[name] = scores
            print(f"{len(results)}/{len(args.policies)}: {name}", file=sys.stderr, flush=True)
    show(results)


if __name__ == "__main__":
    main()
