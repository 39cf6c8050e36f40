"""AMUSE: a PPO agent (discount 0.8) that looks at 13 numbers and is rewarded with the change of quality less a penalty.

Our own re-implementation of the description, trained on our training traces by
`policy.training.baselines.amuse_training`; the weights are a small .npz. The agent's probability of retraining is
compared with a cut that is tuned per cost ratio like every other rule's parameters, as a penalty in points of accuracy
knows nothing of dollars.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from policy.base import Rule, cost_ratio, last_started, serving_quality
from policy.history import Floats, History

WEIGHTS: Final = Path(__file__).with_name("amuse.npz")
FEATURES: Final = (
    "quality",
    "reference quality",
    "drop",
    "drop, mean of 4",
    "drop, mean of 8",
    "slope of the last 8",
    "spread of the last 8",
    "log age of the model",
    "log steps since the last start",
    "log retrains so far",
    "log cost ratio",
    "regret over the cost of a retrain",
    "request rate over its mean",
)


def features(history: History) -> Floats | None:
    """The agent's input, shape (13,); None while fewer than three measurements of the serving model exist."""
    measured = serving_quality(history)
    if len(measured) < 3:
        return None
    reference = float(measured[:4].mean())
    last8 = measured[-8:]
    ratio = cost_ratio(history)
    rate = history.request_rate_rps[np.isfinite(history.request_rate_rps)]
    mean_rate = float(rate.mean()) if len(rate) else 0.0
    return np.array(
        [
            measured[-1],
            reference,
            10.0 * (reference - measured[-1]),
            10.0 * (reference - measured[-4:].mean()),
            10.0 * (reference - last8.mean()),
            100.0 * np.polyfit(np.arange(len(last8)), last8, 1)[0] if len(last8) > 2 else 0.0,
            20.0 * last8.std(),
            np.log1p(len(measured)) / 4.0,
            np.log1p(history.t - last_started(history)) / 4.0,
            np.log1p(len(history.retrains)),
            np.log(max(ratio, 1e-3)) / 2.0,
            np.clip((reference - measured).sum() / max(ratio, 1e-3), -3.0, 3.0),
            rate[-1] / mean_rate - 1.0 if mean_rate > 0 else 0.0,
        ]
    )


@cache
def _weights(path: Path) -> tuple[Floats, ...]:
    with np.load(path, allow_pickle=False) as archive:
        return tuple(archive[name].astype(np.float64) for name in ("w1", "b1", "w2", "b2", "w3", "b3"))


def retrain_probability(inputs: Floats, weights: tuple[Floats, ...]) -> float:
    """Two tanh layers and a logistic output, (13,) -> probability of retraining."""
    w1, b1, w2, b2, w3, b3 = weights
    hidden = np.tanh(w2 @ np.tanh(w1 @ inputs + b1) + b2)
    return float(1.0 / (1.0 + np.exp(-(w3 @ hidden + b3)[0])))


class Amuse(Rule):
    """Retrains when the agent is surer than `cut`."""

    name = "amuse"
    defaults: ClassVar[dict[str, float]] = {"cut": 0.5}

    def fires(self, history: History) -> bool:
        """Whether the agent wants to; holds while too little was measured."""
        inputs = features(history)
        return inputs is not None and retrain_probability(inputs, _weights(WEIGHTS)) > self.parameters(history)["cut"]
