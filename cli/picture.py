"""Line plots of policies over a drift trace, as one self-contained SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local.charts import Line, Panel
from local.charts import picture as svg

__all__ = ["Line", "Panel", "line_of", "svg"]


def line_of(policy: str, trace: Any, decisions: Sequence[int]) -> Line:
    """A policy's quality at each step of the trace, with its retrains."""
    import numpy as np

    from policy.training.simulator.cost import run_cost

    quality = trace.quality[run_cost(trace, decisions).serving, np.arange(trace.steps)]
    marks = [(t, action - 1) for t, action in enumerate(decisions) if action]
    return Line(policy, [float(q) for q in quality], marks)
