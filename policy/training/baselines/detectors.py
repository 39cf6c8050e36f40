"""Drift detectors of river, fed with the serving model's measured quality; a detected drop is a retrain.

A detector starts afresh when a new model goes live: the jump that a retrain makes is not drift. Detected rises are
ignored, because a model that got better needs no retrain. An alarm stands until the next model is live, so that one
which a guardrail held back is not lost.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from policy.base import Rule, serving_quality
from policy.history import Floats, History


class Detector(Rule):
    """Feeds each measurement once. Remembers how far it came, and catches up when it is shown more."""

    def reset(self, seed: int) -> None:
        """Start over with the next history."""
        super().reset(seed)
        self._model: tuple[int, int] | None = None
        self._fed = 0
        self._alarm = False
        self._detector: Any = None

    def __init__(self, **parameters: float) -> None:
        super().__init__(**parameters)
        importlib.import_module("river.drift")  # seconds, which no decision should pay for
        self.reset(0)

    def fires(self, history: History) -> bool:
        """Whether the detector has reported a drop since the serving model went live."""
        measured = serving_quality(history)
        if self._model != history.serving or len(measured) < self._fed:
            self._model, self._fed, self._alarm = history.serving, 0, False
            self._detector = self.build(self.parameters(history))
        for end in range(self._fed + 1, len(measured) + 1):
            self._detector.update(float(measured[end - 1]))
            if self._detector.drift_detected and self.is_drop(measured[:end]):
                self._alarm = True
        self._fed = len(measured)
        return self._alarm

    @abstractmethod
    def build(self, parameters: dict[str, Any]) -> Any:
        """A fresh river detector."""

    def is_drop(self, measured: Floats) -> bool:
        """Whether the last quarter of the measurements lies below the rest."""
        recent = max(3, len(measured) // 4)
        return (
            float(np.mean(measured[-recent:])) < float(np.mean(measured[:-recent])) if len(measured) > recent else False
        )


class Adwin(Detector):
    """ADWIN (Bifet & Gavalda, 2007): the window's two halves differ at confidence `delta`; checked at every step."""

    name = "adwin"
    defaults: ClassVar[dict[str, float]] = {"delta": 0.002}

    def build(self, parameters: dict[str, Any]) -> Any:
        """ADWIN with short windows allowed: a trace has a few hundred steps."""
        from river.drift import ADWIN

        return ADWIN(delta=parameters["delta"], clock=1, min_window_length=3, grace_period=6)


class Kswin(Detector):
    """KSWIN (Raab et al., 2020): Kolmogorov-Smirnov test of the newest `recent` samples against earlier ones."""

    name = "kswin"
    defaults: ClassVar[dict[str, float]] = {"alpha": 0.005, "recent": 8, "window": 24}

    def build(self, parameters: dict[str, Any]) -> Any:
        """KSWIN with the run's seed, as it draws the earlier samples at random."""
        from river.drift import KSWIN

        return KSWIN(
            alpha=parameters["alpha"],
            window_size=int(parameters["window"]),
            stat_size=int(parameters["recent"]),
            seed=self.seed,
        )


class PageHinkley(Detector):
    """Page-Hinkley, downwards: the mean deviation below the running mean, less `slack`, passes `limit`."""

    name = "page-hinkley"
    defaults: ClassVar[dict[str, float]] = {"limit": 0.5, "slack": 0.005}

    def build(self, parameters: dict[str, Any]) -> Any:
        """Page-Hinkley that may speak after six samples."""
        from river.drift import PageHinkley as RiverPageHinkley

        return RiverPageHinkley(min_instances=6, delta=parameters["slack"], threshold=parameters["limit"], mode="down")

    def is_drop(self, measured: Floats) -> bool:
        """The test looks downwards only."""
        return True
