"""The six numbers of the source paper: the observation of `ppo-paper`, and what every decision record shows.

The training environment and the live path share `observation`. Plain values in plain units: they are standardised by
the scaler inside the ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from policy.history import Floats, History

#: samples the rolling average spans: outliers are damped, a swap shows within two slots
SMOOTHING_STEPS: Final = 3
#: decision steps in which redeployments are counted
REDEPLOY_WINDOW_STEPS: Final = 32


@dataclass(frozen=True, slots=True)
class Feature:
    """One entry of an observation: its name, unit and the range outside which it is not believed."""

    name: str
    unit: str
    low: float
    high: float


#: see `observation`
OBSERVATION: Final[tuple[Feature, ...]] = (
    Feature("cpu", "ratio", 0.0, 1.0),
    Feature("memory", "ratio", 0.0, 1.0),
    Feature("request_rate", "1/s", 0.0, 1e5),
    Feature("latency", "s", 0.0, 600.0),
    Feature("accuracy", "ratio", 0.0, 1.0),  # quality; the name is the one in the network's file and the records
    Feature("redeploys", "count", 0.0, float(REDEPLOY_WINDOW_STEPS)),
)


def observation(
    cpu: Floats, memory: Floats, request_rate: Floats, latency: Floats, quality: Floats, redeploys: Floats
) -> Floats:
    """The paper's observation, shape (..., 6), from the last samples, shape (..., k), and a count, shape (...).

    | Num | Name         | Unit  | Min | Max  |
    |-----|--------------|-------|-----|------|
    | 0   | cpu          | ratio | 0   | 1    |
    | 1   | memory       | ratio | 0   | 1    |
    | 2   | request_rate | 1/s   | 0   | 1e5  |
    | 3   | latency      | s     | 0   | 600  |
    | 4   | accuracy     | ratio | 0   | 1    |
    | 5   | redeploys    | count | 0   | 32   |

    The entry "accuracy" is the measured `quality` of `shared.quality`, redeploys the retrains started in the last 32
    steps. The first five are averages over the k samples, missing ones left out; NaN where all are missing.
    """
    series = np.stack(np.broadcast_arrays(cpu, memory, request_rate, latency, quality), axis=-2)  # (..., 5, k)
    present = np.isfinite(series)
    counted = present.sum(axis=-1)
    total = np.where(present, series, 0.0).sum(axis=-1)
    mean = np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
    return np.concatenate([mean, np.asarray(redeploys, dtype=np.float64)[..., None]], axis=-1)


def observe(history: History) -> Floats:
    """The paper's observation of a history's present step, shape (6,)."""
    last = slice(max(0, history.t + 1 - SMOOTHING_STEPS), None)
    recent = sum(1 for retrain in history.retrains if retrain.started >= history.t - REDEPLOY_WINDOW_STEPS)
    return observation(
        history.cpu[last],
        history.memory[last],
        history.request_rate_rps[last],
        history.latency_s[last],
        history.quality[last],
        np.asarray(float(recent)),
    )
