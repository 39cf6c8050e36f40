"""What it costs to count the old model's last measurement as the new one's first.

    python -m benchmarks.policy.attribution [--policy NAME|FILE.onnx] [--per-family 100] [--windows 1 8]

Endpoints swap between two scrapes, so in the slot in which a model goes live the quality that is scraped may still be
the old one's. Three services run the same validation traces under the same noise, each measuring means over a window
and re-evaluating nobody: one where the slot is measured right, one where the old model's quality is believed to be the
new one's, and one as `policy.observation.live.history_of` does it: the slot is missing, the decision in it is hold, and
the model's past begins a slot later. Differences are paired, with their standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.policy.validation import network_of, traces_of
from policy.history import Floats
from policy.observation.tracker import Tracker
from policy.policies import NetworkPolicy
from policy.training.ppo.evaluate import rollout, scoring_rules
from policy.training.simulator.dynamics import Dynamics
from policy.training.simulator.generators import FAMILIES
from policy.training.simulator.pool import Pool
from shared.errors import OpportuneError

SEED: Final = 5


class Old(Dynamics):
    """In the slot of a swap, the old model's last measurement passes for the new one's first."""

    def _see(self, rows: NDArray[np.int64], live: NDArray[np.bool_], tracker: Tracker) -> None:
        self._live = live
        super()._see(rows, live, tracker)

    def _measured(self, rows: NDArray[np.int64], quality: Floats) -> Floats:
        measured = super()._measured(rows, quality)
        return np.where(self._live, self.tracker.last[rows, 0], measured)


class Missing(Dynamics):
    """In the slot of a swap nothing is measured, and the new model begins with the next."""

    swapped: NDArray[np.bool_]  # in this slot, (N,)

    def _see(self, rows: NDArray[np.int64], live: NDArray[np.bool_], tracker: Tracker) -> None:
        # an episode that begins is seen by a tracker of its own
        begins = self.swapped if tracker is self.tracker else np.zeros(len(rows), dtype=bool)
        self.swapped = live.copy()
        super()._see(rows, begins, tracker)

    def _measured(self, rows: NDArray[np.int64], quality: Floats) -> Floats:
        return np.where(self.swapped, np.nan, super()._measured(rows, quality))


KINDS: Final[dict[str, type[Dynamics]]] = {"measured right": Dynamics, "the old one's": Old, "missing": Missing}


def ratios(kind: type[Dynamics], pool: Pool, network: NetworkPolicy, window: int) -> Floats:
    """J / J* of every trace, (P,)."""
    env = kind(pool, len(pool), scoring_rules(window=window), SEED)

    def act(observed: Floats) -> NDArray[np.int64]:
        chosen = network.most_probable(observed)
        return np.where(env.swapped, 0, chosen) if isinstance(env, Missing) else chosen

    return rollout(env, act)[0]


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="ppo", help="a network")
    parser.add_argument("--per-family", type=int, default=100)
    parser.add_argument(
        "--windows", type=int, nargs="+", default=[1, 8], help="steps that a measurement is the mean of"
    )
    args = parser.parse_args()
    if min(args.per_family, *args.windows) < 1:
        parser.error("--per-family and --windows: at least 1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        network = network_of(args.policy)
    except OpportuneError as error:
        parser.error(str(error))
    pools = [traces_of(family, args.per_family) for family in FAMILIES]
    print("| mean of | slot of the swap | mean J/J* | difference |\n|---|---|---|---|")
    for window in args.windows:
        print(f"window of {window}", file=sys.stderr, flush=True)
        found = {
            name: np.concatenate([ratios(kind, pool, network, window) for pool in pools])
            for name, kind in KINDS.items()
        }
        for name, values in found.items():
            gap = values - found["measured right"]
            print(
                f"| {window} | {name} | {values.mean():.4f} | {gap.mean():+.4f} ± {gap.std() / np.sqrt(len(gap)):.4f} |"
            )


if __name__ == "__main__":
    main()
