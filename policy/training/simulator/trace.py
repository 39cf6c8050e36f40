"""Drift traces: one service's history in decision steps, with the quality of every model it could have trained.

A trace is stored as `.npz` without pickle. Row i, column j >= i of `bleu` and `accuracy` is the quality at step j of
a model trained on data up to step i; NaN below the diagonal. Model 0 serves at step 0.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInputError
from shared.quality import quality

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]

#: array field -> its shape in terms of T and constants
_SHAPES = {
    "bleu": ("T", "T"),
    "accuracy": ("T", "T"),
    "request_rate_rps": ("T",),
    "latency_s": ("T",),
    "cpu": ("T",),
    "memory": ("T",),
    "price_usd_per_hour": ("T", 2),
    "train_hours": (2,),
}
_SCALARS = ("step_minutes", "value_usd_per_quality_hour", "noise_sd")


@dataclass(frozen=True)
class Trace:
    """One service's history over T decision steps. `name` says where it comes from and is used in messages."""

    bleu: Floats32  # (T, T), BLEU-1 in [0, 1]
    accuracy: Floats32  # (T, T), exact match in [0, 1]
    request_rate_rps: Floats32  # (T,)
    latency_s: Floats32  # (T,)
    cpu: Floats32  # (T,), [0, 1]
    memory: Floats32  # (T,), [0, 1]
    price_usd_per_hour: Floats32  # (T, 2): training instance on AWS, Azure
    train_hours: Floats32  # (2,): wall time of one retrain on AWS, Azure
    step_minutes: float
    value_usd_per_quality_hour: float  # worth of one unit of quality for one hour
    noise_sd: float = 0.0  # sd of the measured quality
    name: str = "trace"

    @property
    def steps(self) -> int:
        """T, the number of decision steps."""
        return len(self.bleu)

    @cached_property
    def quality(self) -> Floats:
        """Quality of every model at every step (`shared.quality`), (T, T), NaN below the diagonal."""
        return quality(self.bleu.astype(np.float64), self.accuracy.astype(np.float64))

    @cached_property
    def loss_usd(self) -> Floats:
        """What one step costs in lost quality, (T, T): value * hours * (1 - quality); 0 below the diagonal."""
        per_step = self.value_usd_per_quality_hour * self.step_minutes / 60.0
        return np.nan_to_num(per_step * (1.0 - self.quality), nan=0.0)

    @cached_property
    def delays(self) -> tuple[int, int]:
        """d_c per cloud: steps from the start of a job until its model serves."""
        first, second = (max(1, math.ceil(60.0 * float(h) / self.step_minutes)) for h in self.train_hours)
        return first, second

    @cached_property
    def job_usd(self) -> Floats:
        """Cost of a job started at each step on each cloud, (T, 2)."""
        return self.price_usd_per_hour.astype(np.float64) * self.train_hours.astype(np.float64)

    def cut(self, steps: int) -> Trace:
        """The first `steps` steps, for tuning on a warm-up."""
        if not 1 <= steps <= self.steps:
            raise InvalidInputError(f"{self.name}: cannot cut {self.steps} steps to {steps}")
        n = steps
        return Trace(
            self.bleu[:n, :n],
            self.accuracy[:n, :n],
            self.request_rate_rps[:n],
            self.latency_s[:n],
            self.cpu[:n],
            self.memory[:n],
            self.price_usd_per_hour[:n],
            self.train_hours,
            self.step_minutes,
            self.value_usd_per_quality_hour,
            self.noise_sd,
            f"{self.name}[:{n}]",
        )

    def sha256(self) -> str:
        """A hash of the numbers (not of the name or the file)."""
        digest = hashlib.sha256()
        for name in _SHAPES:
            digest.update(np.ascontiguousarray(getattr(self, name), dtype="<f4").tobytes())
        digest.update(np.array([getattr(self, name) for name in _SCALARS], dtype="<f4").tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the trace as a compressed .npz without pickle."""
        arrays = {
            field.name: np.asarray(getattr(self, field.name), dtype=np.float32)
            for field in fields(self)
            if field.name != "name"
        }
        np.savez_compressed(path, allow_pickle=False, **arrays)


def load(path: Path) -> Trace:
    """Read and validate a trace.

    Raises:
        InvalidInputError: the file is unreadable, or a field is missing, of a wrong shape or out of range; the message
            names the file and the field.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        # numpy's own words for a foreign file advise to load it unsafely
        reason = "it holds something else than arrays of numbers" if "pickle" in str(exc) else str(exc)
        raise InvalidInputError(f"{path}: not a readable .npz trace: {reason}") from exc
    except AttributeError as exc:  # np.load returned a bare array (a .npy under another name)
        raise InvalidInputError(f"{path}: holds one array, not a trace (.npz) of named arrays") from exc
    where = str(path)
    for name in (*_SHAPES, "step_minutes", "value_usd_per_quality_hour"):
        if name not in arrays:
            raise InvalidInputError(f"{where}: field {name} is missing")
    for name, array in arrays.items():
        if name in (*_SHAPES, *_SCALARS) and not np.issubdtype(array.dtype, np.number):
            raise InvalidInputError(f"{where}: field {name} holds {array.dtype}, not numbers")
    for name in _SCALARS:
        if name in arrays and arrays[name].size != 1:
            raise InvalidInputError(f"{where}: field {name} has shape {arrays[name].shape}; expected a scalar")
    trace = Trace(
        **{name: arrays[name].astype(np.float32) for name in _SHAPES},
        step_minutes=float(arrays["step_minutes"].item()),
        value_usd_per_quality_hour=float(arrays["value_usd_per_quality_hour"].item()),
        noise_sd=float(arrays["noise_sd"].item()) if "noise_sd" in arrays else 0.0,
        name=path.stem,
    )
    validate(trace, where)
    return trace


def validate(trace: Trace, where: str) -> None:
    """Raise InvalidInputError naming `where` and the field unless the trace is usable."""

    def refuse(field: str, problem: str) -> InvalidInputError:
        return InvalidInputError(f"{where}: field {field} {problem}")

    if trace.bleu.ndim != 2 or trace.bleu.shape[0] != trace.bleu.shape[1] or not len(trace.bleu):
        raise refuse("bleu", f"has shape {trace.bleu.shape}; expected a square (T, T)")
    steps = trace.steps
    for name, dims in _SHAPES.items():
        shape = tuple(steps if dim == "T" else dim for dim in dims)
        array = getattr(trace, name)
        if array.shape != shape:
            raise refuse(name, f"has shape {array.shape}; expected {shape}")
    upper = np.triu_indices(steps)
    for name in ("bleu", "accuracy"):
        values = getattr(trace, name)[upper]
        if not np.all((values >= 0.0) & (values <= 1.0)):
            row, column = (int(index[np.argmin((values >= 0.0) & (values <= 1.0))]) for index in upper)
            value = float(getattr(trace, name)[row, column])
            raise refuse(name, f"is {value} at [{row}, {column}]; expected [0, 1] on and above the diagonal")
    for name in ("request_rate_rps", "latency_s", "cpu", "memory", "price_usd_per_hour"):
        values = getattr(trace, name)
        if np.any(values < 0.0) or np.any(np.isinf(values)):
            raise refuse(name, "holds negative or infinite values")
    if not np.all(np.isfinite(trace.price_usd_per_hour)):
        raise refuse("price_usd_per_hour", "holds missing values")
    if not (np.all(np.isfinite(trace.train_hours)) and np.all(trace.train_hours > 0.0)):
        raise refuse("train_hours", f"is {trace.train_hours.tolist()}; expected positive hours")
    for name in ("step_minutes", "value_usd_per_quality_hour"):
        scalar = getattr(trace, name)
        if not (math.isfinite(scalar) and scalar > 0.0):
            raise refuse(name, f"is {scalar}; expected a positive number")
    if not (math.isfinite(trace.noise_sd) and trace.noise_sd >= 0.0):
        raise refuse("noise_sd", f"is {trace.noise_sd}; expected zero or more")
