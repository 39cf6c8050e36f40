"""Interquartile means and their stratified bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPLICATES = 2000
Values = NDArray[np.float64]


def interquartile_mean(values: Values) -> Any:
    """Mean of the middle half along the last axis."""
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    cut = count // 4
    return ordered[..., cut : count - cut].mean(axis=-1)


def bootstrap(values: Values, strata: Sequence[str], seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of the mean and the interquartile mean, resampling within each stratum."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(strata)
    drawn = np.concatenate(
        [
            values[labels == stratum][rng.integers(0, count, (REPLICATES, count))]
            for stratum in np.unique(labels)
            if (count := int((labels == stratum).sum()))
        ],
        axis=1,
    )  # (replicates, N)
    return {
        "mean": [float(v) for v in np.percentile(drawn.mean(axis=1), (2.5, 97.5))],
        "iqm": [float(v) for v in np.percentile(interquartile_mean(drawn), (2.5, 97.5))],
    }
