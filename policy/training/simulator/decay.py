"""A decay model fitted to one service's own history, so that policies can be replayed on what really happened.

    q[i, j] = level - sum over steps k in (i, j] of decay_k,   decay_k >= 0

A model trained on data up to step i starts at the common level and loses what the world moved since. The decay of
each stretch of time is identified by how the model that served then got worse; what a retrain brings is identified by
the jumps of the retrains that happened, and is an assumption (a fresh model is as good as the first) without any.
Fitted by non-negative least squares to BLEU-1 and exact match separately. The model knows no way back: a world that
returns to where it was shows up as a poor fit. What was never seen is not believed: beyond the largest loss that any
model of the history showed, further decay counts less and less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from policy.history import Floats, History
from policy.training.simulator.trace import Trace
from shared.errors import InvalidInputError
from shared.quality import quality

Models = NDArray[np.int64]

#: fewest measured steps that a fit accepts; see `benchmarks/policy/history_needed.py` for the measurement behind it
MIN_MEASURED: Final = 24
#: stretches of constant decay at most, so that a month of ten-minute steps fits in a second
MAX_STRETCHES: Final = 120
#: steps in a stretch at least, so that one noisy sample is not a change
MIN_STRETCH: Final = 4
#: strengths of the penalty on decay that are tried, and the folds of left-out stretches they are judged by
SHRINKAGES: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
FOLDS: Final = 4
#: sd of what one training is worth by chance, where fewer than three models served
DEFAULT_LUCK_SD: Final = 0.015


@dataclass(frozen=True)
class Decay:
    """The fit of one quality series. `lost[t]`: all decay up to step t, so that q[i, j] = level - lost[j] + lost[i]."""

    level: float
    lost: Floats  # (T,)
    fitted: Floats  # (T,), of the model that served
    residual: Floats  # (T,), measured - fitted, NaN where missing
    shrinkage: float  # strength of the penalty that keeps noise from passing for decay


@dataclass(frozen=True)
class Fit:
    """A fitted history."""

    history: History
    serving: Models  # (T,): the model that served, by the last step of its data
    bleu: Decay
    accuracy: Decay
    luck_sd: float

    @property
    def residual(self) -> Floats:
        """Measured quality less fitted, (T,), NaN where missing."""
        return quality(self.bleu.residual, self.accuracy.residual)

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

    def trace(self, luck: Floats | None = None, beyond: float = 0.25) -> Trace:
        """The fitted history as a drift trace. `luck` (T,) is added to what each model is worth.

        A model may lose at most `1 + beyond` times what any model of the history lost.
        """
        history = self.history
        steps = len(self.serving)
        extra = np.zeros(steps) if luck is None else luck

        def matrix(decay: Decay) -> np.ndarray[Any, np.dtype[np.float32]]:
            lost = np.maximum(0.0, decay.lost[None, :] - decay.lost[:, None])
            known = max(1e-3, float((decay.lost - decay.lost[self.serving]).max()))
            room = known * beyond + 1e-9
            lost = np.minimum(lost, known) + room * -np.expm1(-np.maximum(0.0, lost - known) / room)
            values = np.clip(decay.level + extra[:, None] - lost, 0.0, 1.0)
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
    both = quality(bleu.residual, accuracy.residual)
    return Fit(history, serving, bleu, accuracy, _luck_sd(both, serving))


def serving_models(history: History) -> Models:
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
    bleu = _fit_series(drawn.bleu, fitted.serving, fitted.bleu.shrinkage)
    accuracy = _fit_series(drawn.accuracy, fitted.serving, fitted.accuracy.shrinkage)
    return Fit(drawn, fitted.serving, bleu, accuracy, fitted.luck_sd)


def _fit_series(values: Floats, serving: Models, shrinkage: float | None = None) -> Decay:
    """Penalised non-negative least squares for the level, the decay of each stretch and the luck of each model.

    Without the penalty on decay, measurement noise would pass for drift, as decay can only go one way. Its strength
    is the one that predicts left-out stretches best (None), or given.
    """
    steps = len(values)
    stretch = max(MIN_STRETCH, -(-steps // MAX_STRETCHES))
    edges = np.append(np.arange(0, steps - 1, stretch), steps - 1).astype(np.float64)  # stretches of (edge, next edge]
    now, since = np.arange(steps, dtype=np.float64), serving.astype(np.float64)
    # steps of each stretch that lie between training and now, (T, stretches)
    low, high = np.maximum(edges[None, :-1], since[:, None]), np.minimum(edges[None, 1:], now[:, None])
    aged = np.maximum(0.0, high - low)
    owner = (serving[:, None] == np.unique(serving)[None, :]).astype(np.float64)  # (T, models)
    design = np.concatenate([np.ones((steps, 1)), -aged, owner, -owner], axis=1)
    noise = _noise_sd(values, serving)
    problem = _Problem(design, np.clip(values, 0.0, 1.0), np.diff(edges), owner.shape[1], noise)
    seen = np.isfinite(values)
    if shrinkage is None:
        folds = (np.arange(steps) // (2 * stretch)) % FOLDS
        shrinkage = min(SHRINKAGES, key=lambda strength: problem.left_out_error(seen, folds, strength))
    solution = problem.solve(seen, shrinkage)
    decay = solution[1 : len(edges)]
    lost = np.interp(now, edges, np.concatenate([[0.0], np.cumsum(decay * np.diff(edges))]))
    # the luck of the models explains the past, it is not part of what decay predicts
    fitted = design @ solution
    return Decay(float(solution[0]), lost, fitted, values - fitted, shrinkage)


@dataclass(frozen=True)
class _Problem:
    """min |values - design x|^2 + 2 strength noise sum(length * decay) + (noise / luck sd)^2 |luck|^2, x >= 0."""

    design: Floats  # (T, 1 + stretches + 2 models)
    values: Floats  # (T,)
    lengths: Floats  # (stretches,)
    models: int
    noise: float

    def solve(self, seen: np.ndarray[Any, np.dtype[np.bool_]], strength: float) -> Floats:
        """x, from the rows that are `seen`; the linear penalty is folded in by completing the square."""
        rows, columns = self.design[seen], self.design.shape[1]
        curvature = rows.T @ rows
        ridge = np.full(columns, 1e-9)
        ridge[columns - 2 * self.models :] = (self.noise / DEFAULT_LUCK_SD) ** 2
        curvature[np.diag_indices(columns)] += ridge
        slope = rows.T @ self.values[seen]
        slope[1 : 1 + len(self.lengths)] -= strength * self.noise * self.lengths
        root = np.linalg.cholesky(curvature + 1e-9 * np.eye(columns))
        solution, _ = nnls(root.T, np.linalg.solve(root, slope), maxiter=50 * columns)
        return np.asarray(solution, dtype=np.float64)

    def left_out_error(self, seen: np.ndarray[Any, np.dtype[np.bool_]], folds: Models, strength: float) -> float:
        """Squared error on the rows of each fold when they are left out."""
        error = 0.0
        for fold in range(FOLDS):
            inside = seen & (folds == fold)
            if inside.any():
                predicted = self.design[inside] @ self.solve(seen & (folds != fold), strength)
                error += float(((predicted - self.values[inside]) ** 2).sum())
        return error


def _noise_sd(values: Floats, serving: Models) -> float:
    """Measurement noise, from the differences of neighbouring samples of one model."""
    differences = np.diff(values)[np.diff(serving) == 0]
    differences = differences[np.isfinite(differences)]
    return max(1e-4, float(np.median(np.abs(differences))) / 0.6745 / math.sqrt(2.0)) if len(differences) else 1e-2


def _luck_sd(residual: Floats, serving: Models) -> float:
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
