"""UPF (Regol et al., ICML 2025): forecast the error of keeping and of retraining with uncertainty, compare costs.

Observed errors (model i at step j) are regressed on [i/T, (j - i)/T, j/T, shift] by an elastic net whose penalty is
chosen by cross-validation; the forecast mean and the residual variance make a Beta distribution per future step.
Retrain iff the 95 % quantile of (retrain cost + errors after a retrain) is below that of the errors when keeping.
Observed are the warm-up's whole triangle and, later, every own model re-evaluated. The shift between two steps is
what the first model lost between them, carried forward for the future; the horizon is one warm-up long.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import ElasticNetCV

from policy.history import Decider, Floats, History
from policy.rules.registry import make
from policy.training.simulator.trace import Trace

RATIOS: Final = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
#: observations a fit uses at most, drawn at random
MOST: Final = 400
#: parts of the cross-validation; fewer observations cannot be fitted
FOLDS: Final = 3
#: steps between two fits
REFIT: Final = 8
DRAWS: Final = 200


class Upf:
    """The elastic-net forecaster. Before the warm-up is over, the rule tuned on training traces decides."""

    name = "upf"

    def __init__(self, warm_up: Trace) -> None:
        self._until = warm_up.steps
        self._scale = 4.0 * warm_up.steps
        self._before: Decider = make("rule")
        rows, columns = np.triu_indices(warm_up.steps)
        self._pairs = np.stack([rows, columns])  # (2, N)
        self._errors = 1.0 - warm_up.quality[rows, columns]
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the run, not the warm-up."""
        self._before.reset(seed)
        self._rng = np.random.default_rng(seed)
        self._fitted_at: int | None = None
        self._model: Any = None
        self._variance = 1.0

    def decide(self, history: History) -> int:
        """Compare the two forecasts; hold where too little was measured yet."""
        if history.t < self._until:
            return self._before.decide(history)
        first = self._first_model(history)
        if not np.isfinite(first).all():
            return 0
        if self._fitted_at is None or history.t - self._fitted_at >= REFIT:
            self._fit(history, first)
        if self._model is None:
            return 0
        cloud = history.cheapest_action() - 1
        delay = max(1, int(np.ceil(60.0 * history.train_hours[cloud] / history.step_minutes - 1e-6)))
        ahead = history.t + 1 + np.arange(self._until)
        serving = np.full(len(ahead), max(0, history.serving[0]))
        after = np.where(np.arange(1, len(ahead) + 1) >= delay, history.t, serving)
        step_value = history.value_usd_per_quality_hour * history.step_minutes / 60.0
        price = float(history.retrain_cost_usd()[cloud]) / step_value
        keep, retrain = self._quantile(serving, ahead, first), self._quantile(after, ahead, first)
        return cloud + 1 if price + retrain < keep else 0

    @staticmethod
    def _first_model(history: History) -> Floats:
        """Quality of the first model at every step, gaps carried forward, (t + 1,)."""
        values = history.quality if history.former_model_quality is None else history.former_model_quality[0]
        seen = np.where(np.isfinite(values), np.arange(len(values)), 0)
        return np.asarray(values[np.maximum.accumulate(seen)])

    def _features(self, models: NDArray[Any], steps: NDArray[Any], first: Floats) -> Floats:
        """r_ij, (N, 4)."""
        smooth = np.convolve(np.pad(first, (2, 2), mode="edge"), np.full(5, 0.2), mode="valid")
        last = len(smooth) - 1
        shift = smooth[np.minimum(models, last)] - smooth[np.minimum(steps, last)]
        return np.stack([models / self._scale, (steps - models) / self._scale, steps / self._scale, shift], axis=1)

    def _fit(self, history: History, first: Floats) -> None:
        pairs, errors = [self._pairs], [self._errors]
        if history.former_model_quality is not None:
            started = [0, *(r.started for r in history.retrains if r.live is not None and r.live <= history.t)]
            for model, quality in zip(started, history.former_model_quality, strict=True):
                seen = np.flatnonzero(np.isfinite(quality))
                seen = seen[seen >= self._until]
                pairs.append(np.stack([np.full(len(seen), model), seen]))
                errors.append(1.0 - quality[seen])
        both, target = np.concatenate(pairs, axis=1), np.concatenate(errors)
        if len(target) < FOLDS:
            return
        if len(target) > MOST:
            kept = self._rng.choice(len(target), MOST, replace=False)
            both, target = both[:, kept], target[kept]
        features = self._features(both[0], both[1], first)
        self._model = ElasticNetCV(l1_ratio=list(RATIOS), alphas=25, cv=FOLDS, tol=1e-3, max_iter=5000).fit(
            features, target
        )
        self._variance = float(np.mean((self._model.predict(features) - target) ** 2))
        self._fitted_at = history.t

    def _quantile(self, models: NDArray[Any], steps: NDArray[Any], first: Floats) -> float:
        """95 % quantile of the summed errors, in points x steps."""
        mean = np.clip(self._model.predict(self._features(models, steps, first)), 0.01, 0.99)
        spread = mean * (1.0 - mean)
        usable = self._variance < spread
        strength = np.where(usable, spread / max(self._variance, 1e-9) - 1.0, 1.0)
        a = np.where(usable, mean * strength, 1.0)
        b = np.where(usable, (1.0 - mean) * strength, 1.0)
        return float(np.quantile(self._rng.beta(a, b, (DRAWS, len(mean))).sum(axis=1), 0.95))
