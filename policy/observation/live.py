"""From scraped metrics to a `History`: Prometheus -> `MetricWindow` -> `history_of`, on a grid of decision slots.

Short gaps are interpolated; what is stale, or of one model or another, is missing. A policy's own observation is made
of the history: `policy.observation.paper`, `policy.observation.multistream`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats, History, Retrain
from policy.observation.paper import SMOOTHING_STEPS
from shared.contracts import CLOUDS, Cloud, JobRecord, JobStatus, MetricWindow, Series, slot_of
from shared.errors import MetricsError, NoSamplesError
from shared.promql import METRICS, query
from shared.settings import Settings

__all__ = [
    "METRICS",
    "QUALITY",
    "REQUIRED",
    "history_of",
    "interpolate",
    "query",
    "window_of",
]

#: a decision needs all of these; the two counters are for reports
REQUIRED: Final = ("cpu", "memory", "request_rate", "latency", "bleu", "accuracy")
#: those of them that are of one model
QUALITY: Final = ("bleu", "accuracy")

#: the longest gap (in slots) that is filled by a straight line
MAX_GAP_SLOTS: Final = 4.0
#: what is scraped at a slot is at most this old, in slots; a little less than one, as ticks come a little after theirs
_SCRAPE_AGE_SLOTS: Final = 0.9
#: a cloud's last retrains, whose median says how long the next one takes
REMEMBERED_RETRAINS: Final = 3


def interpolate(series: Series, grid_s: Floats, max_gap_s: float, swaps: Sequence[tuple[float, float]] = ()) -> Floats:
    """The series at the times of `grid_s`: a straight line between neighbours at most `max_gap_s` apart, else NaN.

    After the last sample its value holds for half a gap at most; before the first there is nothing. `swaps` are the
    (from, to) in which the serving model changed, in order: no line is drawn from one model to the next, and what is
    measured in a swap is of neither.
    """
    times, values = _present(series)
    filled = np.full(len(grid_s), np.nan)
    begun = -math.inf
    for ended, next_begun in [*swaps, (math.inf, math.inf)]:
        of_it = (times >= begun) & (times <= ended)
        slots = (grid_s >= begun) & (grid_s <= ended)
        if of_it.any():
            filled[slots] = _filled(times[of_it], values[of_it], grid_s[slots], max_gap_s)
        begun = max(begun, next_begun)
    return filled


def _present(series: Series) -> tuple[Floats, Floats]:
    """Times and values of the samples that are numbers."""
    times = np.asarray(series.timestamps_s, dtype=np.float64)
    values = np.asarray(series.values, dtype=np.float64)
    present = np.isfinite(values)
    return times[present], values[present]


def swaps_of(jobs: Sequence[JobRecord], step_s: float) -> list[tuple[float, float]]:
    """(from, to) in Unix seconds of every change of the serving model, in which a measurement may be of either.

    From the end of training, as the first endpoint may swap at once, until the last one has and has been scraped.
    """
    swaps = []
    for record in jobs:
        swapped = record.status is JobStatus.LIVE
        if swapped or record.status is JobStatus.ACCEPTED:
            trained_s = record.updated_s if record.finished_s is None else record.finished_s
            swaps.append((trained_s, record.updated_s + _SCRAPE_AGE_SLOTS * step_s if swapped else math.inf))
    return sorted(swaps)


def _filled(times: Floats, values: Floats, grid_s: Floats, max_gap_s: float) -> Floats:
    """As `interpolate`, of one model and at least one sample."""
    after = np.searchsorted(times, grid_s, side="left")
    right = np.minimum(after, len(times) - 1)
    left = np.maximum(np.where(times[right] == grid_s, right, after - 1), 0)
    filled = np.interp(grid_s, times, values)
    gap = times[right] - times[left]
    inside = (grid_s >= times[0]) & (grid_s <= times[-1]) & (gap <= max_gap_s)
    trailing = (grid_s > times[-1]) & (grid_s - times[-1] <= max_gap_s / 2.0)
    return np.where(inside | trailing, filled, np.nan)


def window_of(settings: Settings, now_s: float) -> tuple[float, float]:
    """(start, end) of what a decision looks back on, in Unix seconds: whole slots, the last is the present one.

    The start stays where it is for `window_slots` slots, so that a function that is still warm has seen all of it but
    the newest slot; so the window is one to two times `window_slots` long.
    """
    slot = round(slot_of(now_s, settings.slot_seconds) / settings.slot_seconds)
    start = (slot // settings.window_slots - 1) * settings.window_slots
    return max(0, start) * settings.slot_seconds, slot * settings.slot_seconds


def history_of(window: MetricWindow, jobs: Sequence[JobRecord], settings: Settings, now_s: float) -> History:
    """What a decider may see, one entry per decision slot; the last is the present.

    The history starts where every required metric has begun; slots inside it that stay empty are NaN, as is quality
    where it may be of one model or the next. A model's first slot is the first in which it was measured.

    Raises:
        NoSamplesError: a required metric has no sample in the window.
        MetricsError: a required metric is stale, fewer than three slots are known, or the serving model was not
            measured yet.
    """
    step_s = window.step_s
    max_age_s = settings.max_metric_age_slots * step_s
    steps = max(1, round((window.end_s - window.start_s) / step_s) + 1)
    grid_s = window.end_s - step_s * np.arange(steps - 1, -1, -1, dtype=np.float64)
    columns: dict[str, Floats] = {}
    swaps = swaps_of(jobs, step_s)
    for name in REQUIRED:
        times, values = _present(window.series.get(name, Series((), ())))
        if not len(times):
            raise NoSamplesError(f"{name} of service {window.service}", window.missing.get(name, ""))
        age_s = now_s - times[-1]
        if age_s > max_age_s:
            raise MetricsError(
                f"{name} is stale: its last sample is {age_s:.0f} s old, the limit is {max_age_s:.0f} s; "
                + window.missing.get(name, "is the serving container scraped?")
            )
        of_one = swaps if name in QUALITY else []
        columns[name] = interpolate(window.series[name], grid_s, max(MAX_GAP_SLOTS * step_s, max_age_s), of_one)
        # a sample younger than the limit speaks for the present, also where the grid lies a little after it
        if not math.isfinite(columns[name][-1]) and times[-1] >= max((to for _, to in of_one), default=-math.inf):
            columns[name][-1] = values[-1]
    first = max(int(np.argmax(np.isfinite(column))) for column in columns.values())
    if steps - first < SMOOTHING_STEPS:
        raise MetricsError(f"only {steps - first} slots of metrics so far, {SMOOTHING_STEPS} are needed; wait")
    start_s = float(grid_s[first])
    kept = steps - first
    measured = np.isfinite(columns["bleu"][first:] + columns["accuracy"][first:])
    retrains = retrains_of(jobs, settings, start_s, step_s, measured)
    in_flight = any(is_in_flight(record) for record in jobs)
    if not measured.any():
        raise MetricsError("all quality in the window was measured while endpoints swapped models; wait")
    newest = max((r for r in jobs if r.status is JobStatus.LIVE), key=lambda r: r.updated_s, default=None)
    if newest is not None and not in_flight and not measured[max(0, _first_slot(newest, start_s, step_s)) :].any():
        raise MetricsError(
            f"{newest.model_version} has served for {now_s - newest.updated_s:.0f} s and no labelled answer of it has "
            "been measured yet; what it is worth is not known"
        )
    return History(
        # as fast as the clock runs in a demo, money is lost and hours are trained
        step_minutes=step_s * settings.time_scale / 60.0,
        value_usd_per_quality_hour=settings.value_usd_per_quality_hour,
        bleu=columns["bleu"][first:],
        accuracy=columns["accuracy"][first:],
        request_rate_rps=columns["request_rate"][first:],
        latency_s=columns["latency"][first:],
        cpu=columns["cpu"][first:],
        memory=columns["memory"][first:],
        price_usd_per_hour=np.tile([settings.price_usd_per_hour(cloud) for cloud in CLOUDS], (kept, 1)),
        train_hours=train_hours_of(jobs, settings),
        retrains=retrains,
        in_flight=in_flight,
    )


def train_hours_of(jobs: Sequence[JobRecord], settings: Settings) -> Floats:
    """Expected hours from the decision until the new model serves, per cloud, (2,).

    The median of the cloud's last retrains that went live. A cloud without any is expected to take what is configured,
    stretched as the other's were beyond theirs: a model that trains fast on one trains fast on both.
    """
    took: dict[Cloud, list[float]] = {cloud: [] for cloud in CLOUDS}
    for record in sorted(jobs, key=lambda r: r.job.slot_s):
        if record.status is JobStatus.LIVE:
            seconds = max(record.updated_s - record.job.slot_s, settings.slot_seconds)
            took[record.job.cloud].append(seconds * settings.time_scale / 3600.0)
    known = {cloud: float(np.median(hours[-REMEMBERED_RETRAINS:])) for cloud, hours in took.items() if hours}
    stretch = float(np.mean([hours / settings.train_hours(cloud) for cloud, hours in known.items()])) if known else 1.0
    return np.array([known.get(cloud, settings.train_hours(cloud) * stretch) for cloud in CLOUDS])


def is_in_flight(record: JobRecord) -> bool:
    """Whether the job blocks another retrain."""
    return record.status in (JobStatus.CLAIMED, JobStatus.TRAINING, JobStatus.SUCCEEDED, JobStatus.ACCEPTED)


def retrains_of(
    jobs: Sequence[JobRecord], settings: Settings, start_s: float, step_s: float, measured: NDArray[np.bool_]
) -> tuple[Retrain, ...]:
    """Job records as retrains on the history's grid, oldest first; steps before its start are negative.

    A model goes live with the first of the `measured` slots, (steps,), that is its own.
    """
    retrains = []
    for record in sorted(jobs, key=lambda r: r.job.slot_s):
        live = _first_slot(record, start_s, step_s) if record.status is JobStatus.LIVE else None
        if live is not None and live >= 0:
            own = np.flatnonzero(measured[live:])
            live = live + int(own[0]) if len(own) else None
        retrains.append(
            Retrain(
                started=round((record.job.slot_s - start_s) / step_s),
                cloud=CLOUDS.index(record.job.cloud),
                live=live,
                cost_usd=cost_usd(record, settings),
            )
        )
    return tuple(retrains)


def _first_slot(record: JobRecord, start_s: float, step_s: float) -> int:
    """The first slot in which all that is measured is of the job's model."""
    return math.ceil((record.updated_s - start_s) / step_s + _SCRAPE_AGE_SLOTS)


def cost_usd(record: JobRecord, settings: Settings) -> float:
    """What the job cost, or is expected to cost while nobody has said."""
    if record.cost_usd is not None:
        return record.cost_usd
    return settings.price_usd_per_hour(record.job.cloud) * settings.train_hours(record.job.cloud)
