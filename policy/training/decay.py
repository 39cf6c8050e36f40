"""A decay model fitted to one service's own history, so that policies can be replayed on what really happened.

    q[i, j] = level - sum over steps k in (i, j] of decay_k,   decay_k >= 0

A model trained on data up to step i starts at the common level and loses what the world moved since. The decay of
each stretch of time is identified by how the model that served then got worse; what a retrain brings is identified by
the jumps of the retrains that happened, and is an assumption (a fresh model is as good as the first) without any.
Fitted by non-negative least squares to BLEU-1 and exact match separately. The model knows no way back: a world that
returns to where it was shows up as a poor fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from policy.history import Floats, History
from policy.training.trace import Trace
from shared.errors import InvalidInputError

#: fewest measured steps that a fit accepts; see `benchmarks/history_needed.py` for the measurement behind it
MIN_MEASURED: Final = 48
#: stretches of constant decay at most, so that a month of ten-minute steps fits in a second
MAX_STRETCHES: Final = 120
#: steps in a stretch at least, so that one noisy sample is not a change
MIN_STRETCH: Final = 4
#: sd of what one training is worth by chance, where fewer than three models served
DEFAULT_LUCK_SD: Final = 0.015


@dataclass(frozen=True)
class Decay:
    """The fit of one quality series. `lost[t]`: all decay up to step t, so that q[i, j] = level - lost[j] + lost[i]."""

    level: float
    lost: Floats  # (T,)
    fitted: Floats  # (T,), of the model that served
    residual: Floats  # (T,), measured - fitted, NaN where missing


@dataclass(frozen=True)
class Fit:
    """A fitted history."""

    history: History
    serving: np.ndarray[Any, np.dtype[np.int64]]  # (T,): the model that served, by the last step of its data
    bleu: Decay
    accuracy: Decay
    luck_sd: float

    @property
    def residual(self) -> Floats:
        """Measured quality less fitted, (T,), NaN where missing."""
        return 0.5 * self.bleu.residual + 0.5 * self.accuracy.residual

    @property
    def residual_sd(self) -> float:
        """Root mean square of the residual: what the decay model does not explain of one measurement."""
        return float(np.sqrt(np.nanmean(self.residual**2)))

    @property
    def r_squared(self) -> float:
        """Share of the measured quality's variance that the model explains; near 0 for a service that is stable."""
        measured = self.history.quality
        spread = float(np.nanvar(measured))
        return 1.0 - float(np.nanmean(self.residual**2)) / spread if spread > 0 else 0.0

    @property
    def retrains_seen(self) -> int:
        """Retrains of the history whose model went live, each a measurement of what a retrain brings."""
        return sum(retrain.live is not None for retrain in self.history.retrains)

    def trace(self, luck: Floats | None = None) -> Trace:
        """The fitted history as a drift trace. `luck` (T,) is added to what each model is worth."""
        history = self.history
        steps = len(self.serving)
        extra = np.zeros(steps) if luck is None else luck

        def matrix(decay: Decay) -> np.ndarray[Any, np.dtype[np.float32]]:
            values = decay.level + extra[:, None] - (decay.lost[None, :] - decay.lost[:, None])
            values = np.clip(values, 0.0, 1.0)
            values[np.tril_indices(steps, -1)] = np.nan
            return values.astype(np.float32)

        return Trace(
            bleu=matrix(self.bleu),
            accuracy=matrix(self.accuracy),
            request_rate_rps=_filled(history.request_rate_rps),
            latency_s=_filled(history.latency_s),
            cpu=_filled(history.cpu),
            memory=_filled(history.memory),
            price_usd_per_hour=history.price_usd_per_hour.astype(np.float32),
            train_hours=history.train_hours.astype(np.float32),
            step_minutes=history.step_minutes,
            value_usd_per_quality_hour=history.value_usd_per_quality_hour,
            noise_sd=self.residual_sd,
            name="history",
        )


def fit(history: History) -> Fit:
    """Fit the decay model.

    Raises:
        InvalidInputError: the history is too short or has too many gaps to say anything; the message says what is
            missing.
    """
    measured = int(np.isfinite(history.quality).sum())
    hours = history.step_minutes / 60.0
    if measured < MIN_MEASURED:
        raise InvalidInputError(
            f"history too short: quality was measured at {measured} steps of {history.step_minutes:g} minutes, at "
            f"least {MIN_MEASURED} ({MIN_MEASURED * hours:.3g} hours) are needed; widen --since or shorten --step"
        )
    if measured < 0.5 * len(history.quality):
        raise InvalidInputError(
            f"history has too many gaps: quality was measured at {measured} of {len(history.quality)} steps, at least "
            "half are needed; lengthen --step or check that labelled feedback arrives"
        )
    serving = serving_models(history)
    bleu = _fit_series(history.bleu, serving)
    accuracy = _fit_series(history.accuracy, serving)
    both = 0.5 * bleu.residual + 0.5 * accuracy.residual
    return Fit(history, serving, bleu, accuracy, _luck_sd(both, serving))


def serving_models(history: History) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The last data step of the model that served at each step, (T,)."""
    serving = np.zeros(len(history.quality), dtype=np.int64)
    for retrain in sorted((r for r in history.retrains if r.live is not None), key=lambda r: r.live or 0):
        serving[retrain.live :] = max(0, retrain.started)
    return serving


def resampled(fitted: Fit, rng: np.random.Generator) -> Fit:
    """Refit to fitted values plus residuals drawn in blocks: one bootstrap replicate."""
    residual = np.stack([fitted.bleu.residual, fitted.accuracy.residual])
    residual = residual[:, np.isfinite(residual).all(axis=0)]
    steps, kept = len(fitted.serving), residual.shape[1]
    block = max(1, round(math.sqrt(kept)))
    starts = rng.integers(0, kept, -(-steps // block))
    index = ((starts[:, None] + np.arange(block)) % kept).reshape(-1)[:steps]
    drawn = replace(
        fitted.history,
        bleu=np.where(np.isfinite(fitted.history.bleu), fitted.bleu.fitted + residual[0, index], np.nan),
        accuracy=np.where(np.isfinite(fitted.history.accuracy), fitted.accuracy.fitted + residual[1, index], np.nan),
    )
    bleu, accuracy = _fit_series(drawn.bleu, fitted.serving), _fit_series(drawn.accuracy, fitted.serving)
    return Fit(drawn, fitted.serving, bleu, accuracy, fitted.luck_sd)


def _fit_series(values: Floats, serving: np.ndarray[Any, np.dtype[np.int64]]) -> Decay:
    """Non-negative least squares for the level and the decay of each stretch."""
    steps = len(values)
    stretch = max(MIN_STRETCH, -(-steps // MAX_STRETCHES))
    edges = np.append(np.arange(0, steps - 1, stretch), steps - 1).astype(np.float64)  # stretches of (edge, next edge]
    now, since = np.arange(steps, dtype=np.float64), serving.astype(np.float64)
    # steps of each stretch that lie between training and now, (T, stretches)
    low, high = np.maximum(edges[None, :-1], since[:, None]), np.minimum(edges[None, 1:], now[:, None])
    aged = np.maximum(0.0, high - low)
    design = np.concatenate([np.ones((steps, 1)), -aged], axis=1)
    seen = np.isfinite(values)
    solution, _ = nnls(design[seen], np.clip(values[seen], 0.0, 1.0), maxiter=30 * design.shape[1])
    lost = np.interp(now, edges, np.concatenate([[0.0], np.cumsum(solution[1:] * np.diff(edges))]))
    fitted = design @ solution
    return Decay(float(solution[0]), lost, fitted, values - fitted)


def _luck_sd(residual: Floats, serving: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """How much models differ for no reason the decay explains, from the mean residual of each."""
    means = []
    for model in np.unique(serving):
        own = residual[serving == model]
        own = own[np.isfinite(own)]
        if len(own) >= MIN_STRETCH:
            means.append(float(own.mean()))
    return float(np.std(means, ddof=1)) if len(means) >= 3 else DEFAULT_LUCK_SD


def _filled(values: Floats) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Gaps interpolated; zeros where nothing was measured at all (no policy may depend on such a metric)."""
    seen = np.isfinite(values)
    if not seen.any():
        return np.zeros(len(values), dtype=np.float32)
    index = np.arange(len(values))
    return np.interp(index, index[seen], values[seen]).astype(np.float32)
