"""CARA (Mahadevan & Mathioudakis): retrain on staleness, on accumulated staleness, or periodically with an offset.

Staleness is psi_t = max(0, drop of quality below the reference since training). The thresholds come from a grid on
the warm-up (`policy.training.baselines.warm_up`); before that, and in a service without one, from the training traces.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from policy.base import Rule, last_started, quality_drops
from policy.history import Floats, History


def staleness(history: History, window: int) -> Floats:
    """psi of the serving model at each measured step after its first `window`; may be empty."""
    return np.asarray(np.maximum(0.0, quality_drops(history, window)))


class CaraThreshold(Rule):
    """CARA-T: fires when the present staleness passes `tau`."""

    name = "cara-t"
    defaults: ClassVar[dict[str, float]] = {"tau": 0.1, "window": 2}

    def fires(self, history: History) -> bool:
        """psi_t > tau."""
        p = self.parameters(history)
        psi = staleness(history, int(p["window"]))
        return len(psi) > 0 and float(psi[-1]) > p["tau"]


class CaraCumulative(Rule):
    """CARA-CT: fires when the staleness summed since the last retrain passes `tau`."""

    name = "cara-ct"
    defaults: ClassVar[dict[str, float]] = {"tau": 1.0, "window": 2}

    def fires(self, history: History) -> bool:
        """Sum of psi > tau."""
        p = self.parameters(history)
        return float(staleness(history, int(p["window"])).sum()) > p["tau"]


class CaraPeriodic(Rule):
    """CARA-P: retrains at steps `offset`, `offset + phi`, ...; one that falls in flight is made up at once."""

    name = "cara-p"
    defaults: ClassVar[dict[str, float]] = {"phi": 48, "offset": 0}

    def fires(self, history: History) -> bool:
        """Whether a scheduled step has come since the last start. A phi of 0 never retrains."""
        p = self.parameters(history)
        phi, offset = int(p["phi"]), int(p["offset"])
        if phi <= 0 or history.t < offset:
            return False
        due = offset + (history.t - offset) // phi * phi
        return not history.retrains or last_started(history) < due
