"""Multi-stream observation of a live history: the history, replayed through `tracker.Tracker`."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Sequence

import numpy as np

from policy.history import Floats, History
from policy.observation.multistream import observations
from policy.observation.tracker import Tracker


def delays_of(train_hours: Floats, step_minutes: float) -> Floats:
    """Steps from the start of a job until its model serves, per cloud."""
    return np.array([max(1, math.ceil(60.0 * float(h) / step_minutes)) for h in train_hours], dtype=np.float64)


def build(history: History) -> Floats:
    """The multi-stream observation of a history's present step, shape (WIDTH,)."""
    row: Floats = build_many([history])[0]
    return row


def build_many(histories: Sequence[History]) -> Floats:
    """As `build` for histories of one length that share their retrains, shape (N, WIDTH)."""
    tracker = Tracker(len(histories))
    start(tracker, histories)
    advance(tracker, histories, 0)
    return observations(tracker)


def start(tracker: Tracker, histories: Sequence[History]) -> None:
    """Tell an empty tracker what does not change over these histories."""
    first = histories[0]
    per_step = first.value_usd_per_quality_hour * first.step_minutes / 60.0
    rows = np.arange(len(histories))
    delays = np.tile(delays_of(first.train_hours, first.step_minutes), (len(rows), 1))
    tracker.configure(
        rows, np.full(len(rows), per_step), delays, np.full(len(rows), first.former_model_quality is not None)
    )


def advance(tracker: Tracker, histories: Sequence[History], from_step: int) -> None:
    """Push the steps from `from_step` to the present."""
    first, n = histories[0], len(histories)
    series = [
        np.stack([getattr(h, name) for h in histories], axis=1)  # (t + 1, N)
        for name in ("quality", "latency_s", "request_rate_rps", "cpu", "memory")
    ]
    live_at = {r.live: r.started for r in first.retrains if r.live is not None}
    live_steps = sorted(live_at)
    costs = first.price_usd_per_hour * first.train_hours
    for step in range(from_step, first.t + 1):
        quality, latency, rate, cpu, memory = (values[step] for values in series)
        live = np.full(n, step > 0 and step in live_at)
        trained_to = np.full(n, live_at.get(step, 0), dtype=np.int64)
        former = np.tile(_former(first, bisect.bisect_right(live_steps, step), step), (n, 1))
        tracker.push(quality, latency, rate, cpu, memory, np.tile(costs[step], (n, 1)), live, trained_to, former)


def _former(history: History, served: int, step: int) -> Floats:
    """Quality at `step` of the first, the previous and the model before, (FORMER,), of `served` retrains by then."""
    rows = [0, served - 1, served - 2]
    own = history.former_model_quality
    return np.array([np.nan if own is None or served == 0 or row < 0 else own[row, step] for row in rows])


class Follower:
    """`build_many`, but histories that continue the last ones cost only their new steps. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracker: Tracker | None = None
        self._last: tuple[History, ...] = ()

    def follow(self, *histories: History) -> Floats:
        """The multi-stream observation of each history's present step, (N, WIDTH); conditions as for `build_many`."""
        with self._lock:
            last, tracker = self._last, self._tracker
            known = len(last) == len(histories) and all(map(_continues, histories, last))
            if tracker is None or not known:
                tracker = Tracker(len(histories))
                start(tracker, histories)
                advance(tracker, histories, 0)
            else:
                advance(tracker, histories, last[0].t + 1)
            self._last, self._tracker = histories, tracker
            return observations(tracker)


def _continues(history: History, last: History) -> bool:
    """Whether `history` is `last`, later steps or none, so that nothing that was pushed has changed."""
    past = slice(0, last.t + 1)
    if history.t < last.t or history.value_usd_per_quality_hour != last.value_usd_per_quality_hour:
        return False
    if not np.array_equal(history.train_hours, last.train_hours):
        return False
    live_before = [r for r in history.retrains if r.live is not None and r.live <= last.t]
    if live_before != [r for r in last.retrains if r.live is not None and r.live <= last.t]:
        return False
    if (history.former_model_quality is None) != (last.former_model_quality is None):
        return False
    if history.former_model_quality is not None and last.former_model_quality is not None:
        known = len(last.former_model_quality)
        if not _same(history.former_model_quality[:known, past], last.former_model_quality):
            return False
    names = ("bleu", "accuracy", "request_rate_rps", "latency_s", "cpu", "memory", "price_usd_per_hour")
    return all(_same(getattr(history, n)[past], getattr(last, n)) for n in names)


def _same(a: Floats, b: Floats) -> bool:
    """Whether they agree to the last bit, NaN included; a tenth of the time of `np.array_equal`."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()
