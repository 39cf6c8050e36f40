"""`Tracker`: features of N services, updated one decision step at a time; the state of the multi-stream observation.

The training environment follows hundreds of services with one `Tracker`, the live path one. Money is in units of one
full point of quality for one step, so that one policy serves every price and every value.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats

#: first measurements of a model that say what it is worth when new
_FRESH: Final = 6
#: samples that the running means of quality span
SPANS: Final = (2.0, 4.0, 8.0, 20.0)
_RATES: Final = 1.0 / np.array(SPANS)
#: within so many steps changes in one direction are one jump; a larger one is another once the first is settled
_ONE_JUMP: Final = 8
_SETTLED: Final = 4
#: former models that may be re-evaluated: the first, the one before the serving one, and the one before that
FORMER: Final = 3
_FORMER_SPAN: Final = 4.0
#: noise that the first model's quality must be beyond its mean to be on one side of it
_AWAY: Final = 1.5
#: sd of the measured quality before anything is known
_NOISE: Final = 0.03


class Tracker:
    """What is known of N services; arrays of shape (N,) but where a comment says otherwise."""

    def __init__(self, count: int) -> None:
        n = self.count = count
        self.rows = np.arange(n)
        self.t = np.full(n, -1, dtype=np.int64)
        self.capacity = 64
        # running sums of (quality, latency, rate, cpu, memory, first model's quality); entry k: over the first k steps
        self.sums = np.zeros((n, self.capacity + 1, 6))
        self.last = np.zeros((n, 5))
        self.step_value, self.log_delays, self.reevaluates = np.ones(n), np.zeros((n, 2)), np.zeros(n, dtype=bool)
        self.log_price_sum, self.cost = np.zeros((n, 2)), np.ones((n, 2))
        self.live_at, self.data_to = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.measured = np.zeros(n)  # samples of the serving model
        self.fresh, self.smooth = np.zeros(n), np.zeros((n, len(SPANS)))
        self.lowest, self.highest = np.zeros(n), np.zeros(n)
        self.k_sum, self.kk_sum, self.y_sum, self.ky_sum = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        self.models, self.fresh_sum, self.fresh_squares = np.zeros(n), np.zeros(n), np.zeros(n)
        self.best_fresh = np.zeros(n)
        self.gain, self.old_level = np.zeros(n), np.zeros(n)
        self.pace_drop, self.pace_steps = np.zeros(n), np.zeros(n)
        self.variance, self.pairs = np.full(n, _NOISE**2), np.zeros(n)
        self.jump_at, self.jump_size = np.zeros(n, dtype=np.int64), np.zeros(n)
        self.jumps, self.rises = np.zeros(n), np.zeros(n)
        self.retrains = np.zeros(n)
        self.best_rebound, self.gain_sum = np.zeros(n), np.zeros(n)
        self.step_change = np.zeros(n)
        # of the former models: smoothed quality, what it was when new, last step of the data; NaN quality: unknown
        self.former = np.full((n, FORMER), np.nan)
        self.former_now = np.full((n, FORMER), np.nan)  # of the present step
        self.former_fresh, self.former_data = np.zeros((n, FORMER)), np.zeros((n, FORMER))
        self.first_low, self.first_high = np.full(n, np.inf), np.full(n, -np.inf)
        # points x steps by which the serving models were better than the first, re-evaluated, and the present one than
        # the one before it; steps in which that was measured, and those of them in which the first was as good
        self.paid_back, self.paid_back_by_last = np.zeros(n), np.zeros(n)
        self.compared, self.no_better = np.zeros(n), np.zeros(n)
        # of the first model, serving or re-evaluated: sum and count of its quality, side of its mean, changes of side
        self.first_sum, self.first_count = np.zeros(n), np.zeros(n)
        self.side, self.crossings = np.zeros(n), np.zeros(n)

    def restart(self, rows: NDArray[np.int64], begun: Tracker) -> None:
        """Replace the services in `rows` by those of `begun`, a tracker of len(rows) services."""
        for name, value in vars(begun).items():
            if not isinstance(value, np.ndarray) or name in ("rows", "sums"):
                continue
            getattr(self, name)[rows] = value
        self.sums[rows] = 0.0
        self.sums[rows, : begun.sums.shape[1]] = begun.sums

    def configure(
        self, rows: NDArray[np.int64], step_value_usd: Floats, delays: Floats, reevaluates: NDArray[np.bool_]
    ) -> None:
        """Set what one point of quality is worth per step, (n,), the steps a retrain takes per cloud, (n, 2), and
        whether former models will be re-evaluated, (n,).
        """
        self.step_value[rows] = step_value_usd
        self.log_delays[rows] = np.log(delays)
        self.reevaluates[rows] = reevaluates

    def _grow(self) -> None:
        more = np.zeros((self.count, self.capacity, 6))
        self.sums = np.concatenate([self.sums, more], axis=1)
        self.capacity *= 2

    def push(
        self,
        quality: Floats,
        latency: Floats,
        rate: Floats,
        cpu: Floats,
        memory: Floats,
        retrain_cost_usd: Floats,
        live: NDArray[np.bool_],
        trained_to: NDArray[np.int64],
        former: Floats,
    ) -> None:
        """One step of every service, each argument (N,), costs (N, 2); missing measurements are NaN.

        `live` says where a new model went live at this step, `trained_to` the last step of its data. `former`,
        (N, FORMER), is the quality of the first, the previous and the model before, NaN where there is none or nobody
        re-evaluates it.
        """
        self.t += 1
        t = self.t
        if int(t.max()) >= self.capacity:
            self._grow()
        if live.any():
            self._renew(live, trained_to)
        seen = np.isfinite(quality)
        sample = np.stack(
            [quality, np.log(np.maximum(latency, 1e-4)), np.log1p(np.maximum(rate, 0.0)), cpu, memory], axis=1
        )
        sample = np.where(np.isfinite(sample), sample, self.last)
        previous = self.last[:, 0].copy()
        self.last = sample
        self._measure_former(former)
        re_evaluated = np.where(np.isfinite(former[:, 0]), former[:, 0], self.former[:, 0])
        first = np.where(self.retrains == 0, sample[:, 0], np.where(np.isfinite(re_evaluated), re_evaluated, 0.0))
        before = self.sums[self.rows, t]
        before[:, :5] += sample
        before[:, 5] += first
        self.sums[self.rows, t + 1] = before
        self.cost = np.maximum(retrain_cost_usd, 1e-9) / self.step_value[:, None]
        self.log_price_sum += np.log(self.cost)
        self._measure(sample[:, 0], previous, seen, live)
        self._find_jumps()
        self._look_back(sample[:, 0], seen)

    def _renew(self, live: NDArray[np.bool_], trained_to: NDArray[np.int64]) -> None:
        """A new model serves: close the books of the old one."""
        known = live & (self.measured > 0)
        self.models += known
        self.fresh_sum += np.where(known, self.fresh, 0.0)
        self.fresh_squares += np.where(known, self.fresh**2, 0.0)
        self.best_fresh = np.where(known, np.maximum(self.best_fresh, self.fresh), self.best_fresh)
        self.pace_drop += np.where(known, self.fresh - self.smooth[:, 1], 0.0)
        self.pace_steps += np.where(known, self.measured, 0.0)
        self.gain_sum += np.where(known, self.gain, 0.0)
        # the model that leaves becomes the previous one, and the first one if it was
        left = np.stack([self.smooth[:, 1], self.fresh, self.data_to.astype(np.float64)])
        for series, (value, was) in zip(
            ("former", "former_fresh", "former_data"),
            ((left[0], self.former), (left[1], self.former_fresh), (left[2], self.former_data)),
            strict=True,
        ):
            first = np.where(self.retrains == 0, value, was[:, 0])
            before = np.where(self.retrains == 0, np.nan if series == "former" else 0.0, was[:, 1])
            setattr(self, series, np.where(live[:, None], np.column_stack([first, value, before]), was))
        starts = live & (self.retrains == 0)
        self.first_low = np.where(starts, np.minimum(self.lowest, left[0]), self.first_low)
        self.first_high = np.where(starts, np.maximum(self.highest, left[0]), self.first_high)
        self.gain[live] = 0.0
        self.old_level = np.where(live, self.smooth[:, 1], self.old_level)
        self.live_at = np.where(live, self.t, self.live_at)
        self.data_to = np.where(live, trained_to, self.data_to)
        for name in ("measured", "k_sum", "kk_sum", "y_sum", "ky_sum", "paid_back_by_last"):
            getattr(self, name)[live] = 0.0
        self.retrains += live

    def _measure_former(self, former: Floats) -> None:
        """Take in the re-evaluation of former models."""
        self.former_now = former
        seen = np.isfinite(former)
        if not seen.any():
            return
        known = np.where(np.isfinite(self.former), self.former, former)
        self.former = np.where(seen, known + (former - known) / _FORMER_SPAN, self.former)
        seen_first = seen[:, 0]
        self.first_low = np.where(seen_first, np.minimum(self.first_low, self.former[:, 0]), self.first_low)
        self.first_high = np.where(seen_first, np.maximum(self.first_high, self.former[:, 0]), self.first_high)

    def _measure(self, y: Floats, previous: Floats, seen: NDArray[np.bool_], live: NDArray[np.bool_]) -> None:
        """Take in one measurement of the serving model."""
        first = seen & (self.measured == 0)
        # noise from differences of neighbours, jumps cut off
        pair = seen & ~first & ~live
        squared = np.minimum(0.5 * (y - previous) ** 2, 9.0 * self.variance)
        self.pairs += pair
        weight = np.where(pair, 1.0 / (self.pairs + 4.0), 0.0)
        self.variance = np.maximum(self.variance + weight * (squared - self.variance), 1e-6)
        self.measured += seen
        n = np.maximum(self.measured, 1.0)
        early = seen & (self.measured <= _FRESH) & (self.jump_at <= self.live_at)
        self.fresh = np.where(early, np.where(first, y, self.fresh + (y - self.fresh) / n), self.fresh)
        rate = np.maximum(1.0 / n[:, None], _RATES) * seen[:, None]
        self.smooth += rate * (y[:, None] - self.smooth)
        self.gain = np.where((self.retrains > 0) & early, self.fresh - self.old_level, self.gain)
        k = self.measured * seen
        self.k_sum += k
        self.kk_sum += k * k
        self.y_sum += y * seen
        self.ky_sum += k * y
        self.lowest = np.where(first, y, np.minimum(self.lowest, self.smooth[:, 1]))
        self.best_rebound = np.maximum(self.best_rebound, self.smooth[:, 1] - self.lowest)
        self.highest = np.where(first, y, np.maximum(self.highest, self.smooth[:, 1]))

    def _find_jumps(self) -> None:
        """Notice a sudden change of the serving model's quality: the last two samples (of four or more, else the last)
        against up to six before them. What a model was worth when new is taken from before its first jump.
        """
        age = self.t - self.live_at
        able = age >= 1
        reach = np.minimum(age + 1, 8)
        newest = np.where(age >= 3, 2, 1)
        older = np.maximum(reach - newest, 1)
        rows, top = self.rows, self.t + 1
        total = self.sums[:, :, 0]
        split = top - newest
        recent = (total[rows, top] - total[rows, split]) / newest
        before = (total[rows, split] - total[rows, np.maximum(split - older, 0)]) / older
        self.step_change = np.where(able, recent - before, 0.0)
        limit = np.maximum(3.5 * np.sqrt(self.variance * (1.0 / newest + 1.0 / older)), 0.04)
        since, first = self.t - self.jump_at, self.jump_at <= self.live_at
        large = able & (np.abs(self.step_change) > limit)
        known = self.jumps + self.rises > 0
        other_way = self.step_change * self.jump_size < 0
        stronger = known & ~other_way & (np.abs(self.step_change) > np.abs(self.jump_size))
        fresh_jump = large & (~known | other_way | (since >= _ONE_JUMP) | (stronger & (since >= _SETTLED)))
        # of this model's jump, seen at its first sample, the second tells size and time better
        clearer = able & stronger & ~first & (since < _SETTLED)
        fell = fresh_jump & (self.step_change < 0)
        self.jumps += fell
        self.rises += fresh_jump & (self.step_change > 0)
        self.jump_at = np.where(fresh_jump | clearer, self.t - newest + 1, self.jump_at)
        self.jump_size = np.where(fresh_jump | clearer, self.step_change, self.jump_size)
        # its first measurements, if none is missing, were a mean over both sides
        mixed = fresh_jump & first & (self.measured <= _FRESH + 2) & (self.measured == age + 1)
        if mixed.any():
            new = (total[rows, split] - total[rows, self.live_at]) / np.maximum(age + 1 - newest, 1)
            self.fresh = np.where(mixed, new, self.fresh)
            self.gain = np.where(mixed & (self.retrains > 0), self.fresh - self.old_level, self.gain)

    def _look_back(self, quality: Floats, seen: NDArray[np.bool_]) -> None:
        """What the retrains so far have brought, and how often the world has come and gone."""
        former = np.where(seen[:, None], self.former_now, np.nan)
        better = np.where(np.isfinite(former[:, :2]), quality[:, None] - former[:, :2], 0.0)
        self.paid_back += better[:, 0]
        self.paid_back_by_last += better[:, 1]
        compared = np.isfinite(former[:, 0])
        self.compared += compared
        self.no_better += compared & (self.former[:, 0] >= self.smooth[:, 1])
        alone = self.retrains == 0
        known = np.where(alone, seen, compared)
        self.first_sum += np.where(known, np.where(alone, quality, former[:, 0]), 0.0)
        self.first_count += known
        level = np.where(alone, self.smooth[:, 1], self.former[:, 0])
        away = level - self.first_sum / np.maximum(self.first_count, 1.0)
        side = np.where(known & (np.abs(away) > _AWAY * np.sqrt(self.variance)), np.sign(away), self.side)
        self.crossings += side * self.side < 0
        self.side = side

    def since_jump(self) -> tuple[Floats, Floats]:
        """Mean and pace (1/step) of the serving model's quality since its last jump, or since it went live; (N,) each.

        The pace is of the younger half of these samples against the older half.
        """
        rows, top = self.rows, self.t + 1
        start = np.maximum(self.jump_at, self.live_at)
        total = self.sums[:, :, 0]
        count = top - start  # one or more
        half = count // 2
        middle = top - half
        first = (total[rows, middle] - total[rows, start]) / (count - half)
        second = (total[rows, top] - total[rows, middle]) / np.maximum(half, 1)
        mean = (total[rows, top] - total[rows, start]) / count
        return mean, np.where(half > 0, 2.0 * (second - first) / np.maximum(count, 4), 0.0)

    def reevaluated(self) -> Floats:
        """1 where former models are re-evaluated, or will be when there are some, (N,)."""
        known = self.reevaluates & ((self.retrains == 0) | np.isfinite(self.former_now[:, 0]))
        return np.asarray(known, dtype=np.float64)
