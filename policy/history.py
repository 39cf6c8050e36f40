"""`History`, what a policy may see at a decision step: the one input of the ONNX policies and of every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.quality import quality

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Retrain:
    """One retrain that was started: `started` and `live` are step indices into the history.

    A model trained at step i uses data up to i; `live` is the first step it served (None: in flight or never went
    live). `cloud` is 0 for AWS, 1 for Azure.
    """

    started: int
    cloud: int
    live: int | None
    cost_usd: float


@dataclass(frozen=True, slots=True)
class History:
    """One service's past in decision steps, oldest first, up to and including the present step `t = length - 1`.

    Arrays have length t + 1. A missing sample is NaN, never zero. Nothing of the future, and nothing of a model
    that was not trained, is ever in here.
    """

    step_minutes: float
    value_usd_per_quality_hour: float  # worth of one unit of quality for one hour
    bleu: Floats  # measured BLEU-1 of the serving model, [0, 1]
    accuracy: Floats  # measured exact match of the serving model, [0, 1]
    request_rate_rps: Floats
    latency_s: Floats
    cpu: Floats  # [0, 1]
    memory: Floats  # [0, 1]
    price_usd_per_hour: Floats  # (t + 1, 2): training instance on AWS, Azure
    train_hours: Floats  # (2,): wall time of one retrain on AWS, Azure
    retrains: tuple[Retrain, ...]  # every retrain started so far, oldest first
    in_flight: bool  # a job runs; the decider may only hold
    # (m, t + 1): measured quality at each step of the first model and of each own model that went live, in the order
    # they went live; NaN before a model existed. None where nobody re-evaluates old models (the live system).
    former_model_quality: Floats | None = None

    @property
    def t(self) -> int:
        """The present step."""
        return len(self.bleu) - 1

    @property
    def quality(self) -> Floats:
        """Measured quality of the serving model (`shared.quality`), shape (t + 1,)."""
        return quality(self.bleu, self.accuracy)

    @property
    def serving(self) -> tuple[int, int]:
        """(step up to which the serving model's data reaches, step it went live); (0, 0) for the first model."""
        live = [(r.started, r.live) for r in self.retrains if r.live is not None and r.live <= self.t]
        return max(live, key=lambda pair: pair[1]) if live else (0, 0)

    def retrain_cost_usd(self) -> Floats:
        """Today's cost of one retrain per cloud, shape (2,)."""
        return np.asarray(self.price_usd_per_hour[-1] * self.train_hours, dtype=np.float64)

    def cheapest_action(self) -> int:
        """The retrain action (1 AWS, 2 Azure) that costs least now."""
        return int(np.argmin(self.retrain_cost_usd())) + 1


class Decider(Protocol):
    """A retrain policy, learned or a rule: one instance per service, called once a step, in order."""

    name: str

    def reset(self, seed: int) -> None:
        """Forget everything; called before the first step of a run."""
        ...

    def decide(self, history: History) -> int:
        """0 hold, 1 retrain and redeploy on AWS, 2 on Azure; never called while a job is in flight."""
        ...
