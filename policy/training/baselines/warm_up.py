"""Tuning on the warm-up: the first quarter of a trace, whose models could all be trained and scored afterwards.

A baseline that needs one is built with the trace cut to its first quarter, never with more. It holds the parameters
tuned on the training traces until the warm-up is over, so that no decision uses what lies ahead of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from policy.history import Decider, History
from policy.training.simulator.cost import run_cost
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace

#: parameter -> values tried
Grid = Mapping[str, Sequence[float]]

GRIDS: Final[dict[str, Grid]] = {
    "periodic": {"period": (0, 4, 6, 8, 12, 16, 24, 32, 48)},
    "cara-p": {"phi": (0, 4, 6, 8, 12, 16, 24, 32, 48), "offset": (0, 4, 8, 16)},
    "cara-t": {"tau": (0.02, 0.05, 0.08, 0.12, 0.16, 0.2, 0.3, 0.5, 9.0)},
    "cara-ct": {"tau": (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 1e9)},
}


def warm_up_of(trace: Trace) -> Trace:
    """The first quarter of a trace."""
    return trace.cut(max(1, trace.steps // 4))


class WarmedUp:
    """A rule that is tuned on a warm-up and decides with the result from then on."""

    def __init__(self, name: str, warm_up: Trace, make: Callable[..., Decider]) -> None:
        self.name = name
        self._until = warm_up.steps
        self._before = make(name)
        best = min(
            (dict(zip(GRIDS[name], values, strict=True)) for values in itertools.product(*GRIDS[name].values())),
            key=lambda parameters: run_cost(warm_up, replay(warm_up, make(name, **parameters))).cost_usd,
        )
        self.parameters: dict[str, Any] = best
        self._after = make(name, **best)

    def reset(self, seed: int) -> None:
        """Forget the run, not the tuning."""
        self._before.reset(seed)
        self._after.reset(seed)

    def decide(self, history: History) -> int:
        """The rule's action, with the parameters that were known by now."""
        return (self._before if history.t < self._until else self._after).decide(history)
