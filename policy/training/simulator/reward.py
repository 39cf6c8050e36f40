"""The reward of a step. Dollars are the default: users know their prices."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats
from shared.quality import quality

Reward = Literal["usd", "regret", "paper"]

#: the source paper's price of hold, a retrain on AWS, on Azure, in units of quality
PAPER_COST: Final = np.array([0.0, 0.045, 0.038])


def usd(lost_usd: Floats, job_usd: Floats, step_value_usd: Floats) -> Floats:
    """Minus the cost of one step, in units of one full point of quality for one step; shapes (N,)."""
    return np.asarray(-(lost_usd + job_usd) / step_value_usd)


def paper(accuracy: Floats, bleu: Floats, action: NDArray[np.int64]) -> Floats:
    """The source paper's: quality - cost of the action; shapes (N,)."""
    return np.asarray(quality(bleu, accuracy) - PAPER_COST[action])


def regret(extra_usd: Floats, optimum_usd: Floats) -> Floats:
    """-(Q* - V*) / J*: what the action costs beyond the best that could still be reached, as a share of the optimum.

    Summed over a run it is exactly -(J - J*) / J*, but it is paid at the step that causes it; shapes (N,).
    """
    return np.asarray(-extra_usd / optimum_usd)
