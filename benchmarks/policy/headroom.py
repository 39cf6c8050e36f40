"""How much better could a network choose, and what would it have to know for that?

    python -m benchmarks.policy.headroom [--per-family 1500] [--lives 6] [--judged 300] [--policy NAME|FILE.onnx]

From states that services meet a hold and a retrain are both rolled out to the end, the network deciding everything
else. Trees learn the difference: from what the network sees, and from that and the family, which nobody knows in life.
Then the trees decide where they are clear that the network is wrong. What they save on validation traces is what a
better choice from the same numbers may still save (one step of policy iteration), and what knowing the family would
add. Paired differences with the standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.policy.validation import Score, Scores, network_of, paired, score, score_of, traces_of
from policy.history import Floats
from policy.policies import NetworkPolicy
from policy.training.ppo.evaluate import scoring_rules
from policy.training.ppo.policy_iteration import difference_model, roll_out_both
from policy.training.simulator.generators import FAMILIES, generate
from policy.training.simulator.pool import Pool
from shared.errors import OpportuneError

#: the first trace whose states are asked; neither training, validation nor the test set has it
ASKED_SEED: Final = 505_000_000
#: a difference in J/J* from which on the trees overrule the network
CLEAR: Final = 0.01

Dearer = Callable[[Floats], Floats]
"""Observations (N, D) -> by how much of the optimal cost a retrain is dearer than a hold, (N,)."""


def asked(name: str, family: str, count: int, rollouts: int) -> tuple[Floats, Floats]:
    """Picked states of a family: observations (N, D), by how much of the optimal cost a retrain is dearer (N,)."""
    network = network_of(name)
    pool = Pool(generate(family, ASKED_SEED + k) for k in range(count))
    found = [roll_out_both(network.probabilities_of, pool, scoring_rules(), ASKED_SEED + k) for k in range(rollouts)]
    seen, dearer, _ = zip(*found, strict=True)
    return np.concatenate(seen), np.concatenate(dearer)


def with_family(observed: Floats, family: str) -> Floats:
    """The observations with the family beside them, (N, D + families)."""
    known = np.zeros((len(observed), len(FAMILIES)), dtype=observed.dtype)
    known[:, tuple(FAMILIES).index(family)] = 1.0
    return np.concatenate([observed, known], axis=1)


def overruled(network: NetworkPolicy, pool: Pool, dearer: Dearer) -> Score:
    """Score the network where `dearer` decides what it is clear about."""

    def act(observed: Floats) -> NDArray[np.int64]:
        chances, difference = network.probabilities_of(observed), dearer(observed)
        likely = chances.argmax(axis=1)
        changed = np.where((likely == 0) & (difference < -CLEAR), 1 + chances[:, 1:].argmax(axis=1), likely)
        return np.where((likely > 0) & (difference > CLEAR), 0, changed)

    return score_of(act, pool, "multistream")


def main() -> None:
    """Ask, learn, overrule and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="ppo", metavar="NAME|FILE.onnx")
    parser.add_argument("--per-family", type=int, default=1500, help="traces whose states are asked")
    parser.add_argument("--lives", type=int, default=6, help="states of each of them")
    parser.add_argument("--judged", type=int, default=300, help="validation traces of each family")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        network = network_of(args.policy)
    except OpportuneError as error:
        parser.error(str(error))
    if network.observation != "multistream":
        parser.error(f"--policy {args.policy}: sees {network.observation!r}; give a multi-stream network")
    if min(args.per_family, args.lives, args.judged) < 1:
        parser.error("--per-family, --lives and --judged: at least one")
    states: dict[str, tuple[Floats, Floats]] = {}
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        every = len(FAMILIES)
        asking = pool.map(asked, [args.policy] * every, FAMILIES, [args.per_family] * every, [args.lives] * every)
        for family, found in zip(FAMILIES, asking, strict=True):
            states[family] = found
            print(f"{len(states)}/{every}: {family}", file=sys.stderr, flush=True)
    dearer = np.concatenate([difference for _, difference in states.values()])
    plain = difference_model(np.concatenate([seen for seen, _ in states.values()]), dearer, seed=1)
    informed = difference_model(
        np.concatenate([with_family(seen, f) for f, (seen, _) in states.items()]), dearer, seed=1
    )

    def knowing(family: str) -> Dearer:
        return lambda observed: informed.predict(with_family(observed, family))

    judged = {family: traces_of(family, args.judged) for family in FAMILIES}
    alone: Scores = {family: score(network, traces) for family, traces in judged.items()}
    results = {
        "from what it sees": {f: overruled(network, traces, plain.predict) for f, traces in judged.items()},
        "and knowing the family": {f: overruled(network, traces, knowing(f)) for f, traces in judged.items()},
    }
    print(f"{len(dearer)} states; J/J* (retrains), then the paired difference from {args.policy} alone\n")
    print(f"| decided by | ten families | {' | '.join(FAMILIES)} |\n|{'---|' * (2 + len(FAMILIES))}")
    cells = [f"{each.ratios.mean():.3f} ({each.times:.2f}×)" for each in alone.values()]
    mean = np.mean([each.ratios.mean() for each in alone.values()])
    print(f"| {args.policy} | {mean:.4f} | {' | '.join(cells)} |")
    for title, scores in results.items():
        differences = [paired(scores, alone, group) for group in (FAMILIES, *zip(FAMILIES))]
        print(f"| trees, {title} | {' | '.join(f'{mean:+.4f} ± {error:.4f}' for mean, error in differences)} |")


if __name__ == "__main__":
    main()
