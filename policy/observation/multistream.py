"""The multi-stream observation: what a service's past says about the worth of a retrain, in scale-free numbers.

`Tracker` follows N services at once, one `push` a step; the training environment uses it with hundreds, the live path
with one. `policy.observation.follow` replays a history through it, so both see the same numbers. One observation:

    performance  (BLOCKS, 5)  for the GRU, oldest first: quality, share of the serving model, latency, request rate,
                              quality of the first model, re-evaluated
    resources    (2, BLOCKS)  for the convolution: CPU, memory
    deployment   (len(DENSE),) for the dense layers: see DENSE

A block is the mean over 1, 1, 2, 4, 8, 24, 80 steps back from the present: fine for what just happened,
coarse for what is long past. Models that served before may be re-evaluated at each step: they are fixed points against
which the world is seen to move. Where nobody does that, these features say so and are zero.
Money is in units of one full point of quality for one step, so that one policy serves every price and every value.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats
from policy.observation.live import OBSERVATION, Feature

#: steps per block, newest first
_SIZES: Final = np.array([1, 1, 2, 4, 8, 24, 80])
_ENDS: Final = np.concatenate([[0], np.cumsum(_SIZES)])
BLOCKS: Final = len(_SIZES)
PERFORMANCE: Final = 5
RESOURCES: Final = 2
#: first measurements of a model that say what it is worth when new
_FRESH: Final = 6
_SPANS: Final = (2.0, 4.0, 8.0, 20.0)
_RATES: Final = 1.0 / np.array(_SPANS)
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

_UNIT = "1"
#: name, unit, lowest and highest believed value of the dense features
DENSE: Final[tuple[Feature, ...]] = (
    Feature("log_retrain_cost", "ln(points x steps)", -1.5, 6.0),
    Feature("log_cost_ratio_of_clouds", "ln", -3.0, 3.0),
    Feature("log_price_now_over_usual_aws", "ln", -2.0, 2.0),
    Feature("log_price_now_over_usual_azure", "ln", -2.0, 2.0),
    Feature("log_delay_aws", "ln(steps)", 0.0, 4.0),
    Feature("log_delay_azure", "ln(steps)", 0.0, 4.0),
    Feature("time", "256 steps", 0.0, 1e6),
    Feature("log_age", "ln(steps)", 0.0, 14.0),
    Feature("log_data_age", "ln(steps)", 0.0, 14.0),
    Feature("retrains", "ln(1 + count)", 0.0, 7.0),
    Feature("fresh_quality", _UNIT, -0.2, 1.2),
    Feature("drop_2", _UNIT, -1.2, 1.2),
    Feature("drop_4", _UNIT, -1.2, 1.2),
    Feature("drop_8", _UNIT, -1.2, 1.2),
    Feature("drop_20", _UNIT, -1.2, 1.2),
    Feature("log_gain_over_cost", "ln", -12.0, 6.0),
    Feature("log_known_gain_over_cost", "ln", -12.0, 6.0),
    Feature("regret_over_cost", _UNIT, -8.0, 8.0),
    Feature("log_regret_over_cost", "ln", -12.0, 8.0),
    Feature("usual_fresh_minus_now", _UNIT, -1.2, 1.2),
    Feature("best_fresh_minus_now", _UNIT, -1.2, 1.2),
    Feature("fresh_minus_usual", _UNIT, -1.2, 1.2),
    Feature("spread_of_fresh", _UNIT, 0.0, 1.0),
    Feature("last_gain", _UNIT, -1.2, 1.2),
    Feature("last_gain_over_cost", _UNIT, -8.0, 8.0),
    Feature("noise_sd", _UNIT, 0.0, 0.5),
    Feature("pace_of_this_model", "1/step", -8.0, 8.0),
    Feature("pace_recent", "1/step", -8.0, 8.0),
    Feature("usual_pace", "1/step", -8.0, 8.0),
    Feature("curvature", "1/step", -8.0, 8.0),
    Feature("jump_now", _UNIT, -1.2, 1.2),
    Feature("log_since_jump", "ln(steps)", 0.0, 14.0),
    Feature("jump_size", _UNIT, -1.2, 1.2),
    Feature("level_since_jump", _UNIT, -1.2, 1.2),
    Feature("pace_since_jump", "1/step", -8.0, 8.0),
    Feature("since_jump_over_interval", _UNIT, 0.0, 8.0),
    Feature("jumps", "ln(1 + count)", 0.0, 7.0),
    Feature("rises", "ln(1 + count)", 0.0, 7.0),
    Feature("trained_since_jump", _UNIT, 0.0, 1.0),
    Feature("log_trained_after_jump", "ln(steps)", 0.0, 14.0),
    Feature("lowest_since_live", _UNIT, -1.2, 1.2),
    Feature("highest_since_live", _UNIT, -1.2, 1.2),
    Feature("half_cost_pace", "ln", -12.0, 8.0),
    Feature("rebound", _UNIT, -1.2, 1.2),
    Feature("best_rebound", _UNIT, -1.2, 1.2),
    Feature("mean_gain", _UNIT, -1.2, 1.2),
    Feature("reevaluated", _UNIT, 0.0, 1.0),
    Feature("first_model_minus_now", _UNIT, -1.2, 1.2),
    Feature("previous_model_minus_now", _UNIT, -1.2, 1.2),
    Feature("model_before_minus_now", _UNIT, -1.2, 1.2),
    Feature("first_model_drop", _UNIT, -1.2, 1.2),
    Feature("previous_model_drop", _UNIT, -1.2, 1.2),
    Feature("first_model_rebound", _UNIT, -1.2, 1.2),
    Feature("first_model_range", _UNIT, -1.2, 1.2),
    Feature("previous_model_pace", "1/step", -8.0, 8.0),
    Feature("paid_back", _UNIT, -8.0, 8.0),
    Feature("paid_back_by_last", _UNIT, -8.0, 8.0),
    Feature("in_vain", _UNIT, 0.0, 1.0),
    Feature("crossings", "ln(1 + count)", 0.0, 7.0),
)


def _block_features() -> tuple[Feature, ...]:
    """Names of the block features in the order of the observation."""
    oldest_first = [f"{_ENDS[b]}_to_{_ENDS[b + 1]}_ago" for b in range(BLOCKS - 1, -1, -1)]
    performance = (
        ("quality", -1.2, 1.2),
        ("served", 0.0, 1.0),
        ("latency", -8.0, 8.0),
        ("rate", -8.0, 8.0),
        ("first_model", -1.2, 1.2),
    )
    resources = (("cpu", -1.0, 1.0), ("memory", -1.0, 1.0))
    stream = [Feature(f"{n}_{block}", _UNIT, low, high) for block in oldest_first for n, low, high in performance]
    stream += [Feature(f"{n}_{block}", _UNIT, low, high) for n, low, high in resources for block in oldest_first]
    return tuple(stream)


#: every feature in the order of the observation
FEATURES: Final = (*_block_features(), *DENSE)
WIDTH: Final = len(FEATURES)


def features_of(observation: str) -> tuple[Feature, ...]:
    """The features of an observation, "paper" or "multistream", in order."""
    return OBSERVATION if observation == "paper" else FEATURES


class Tracker:
    """What is known of N services, updated one step at a time."""

    def __init__(self, count: int) -> None:
        n = self.count = count
        self._rows = np.arange(n)
        self.t = np.full(n, -1, dtype=np.int64)
        self.capacity = 64
        # running sums of (quality, latency, rate, cpu, memory, first model's quality); entry k: over the first k steps
        self.sums = np.zeros((n, self.capacity + 1, 6))
        self.last = np.zeros((n, 5))
        self.step_value, self.log_delays, self.reevaluates = np.ones(n), np.zeros((n, 2)), np.zeros(n, dtype=bool)
        self.log_price_sum, self.cost = np.zeros((n, 2)), np.ones((n, 2))
        self.live_at, self.data_to = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.measured = np.zeros(n)  # samples of the serving model
        self.fresh, self.smooth = np.zeros(n), np.zeros((n, len(_SPANS)))
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
        self.compared, self.in_vain = np.zeros(n), np.zeros(n)
        # of the first model, serving or re-evaluated: sum and count of its quality, side of its mean, changes of side
        self.first_sum, self.first_count = np.zeros(n), np.zeros(n)
        self.side, self.crossings = np.zeros(n), np.zeros(n)

    def restart(self, rows: NDArray[np.int64], begun: Tracker) -> None:
        """Replace the services in `rows` by those of `begun`, a tracker of len(rows) services."""
        for name, value in vars(begun).items():
            if not isinstance(value, np.ndarray) or name in ("_rows", "sums"):
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
        before = self.sums[self._rows, t]
        before[:, :5] += sample
        before[:, 5] += first
        self.sums[self._rows, t + 1] = before
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
        rows, top = self._rows, self.t + 1
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
        self.in_vain += compared & (self.former[:, 0] >= self.smooth[:, 1])
        alone = self.retrains == 0
        known = np.where(alone, seen, compared)
        self.first_sum += np.where(known, np.where(alone, quality, former[:, 0]), 0.0)
        self.first_count += known
        level = np.where(alone, self.smooth[:, 1], self.former[:, 0])
        away = level - self.first_sum / np.maximum(self.first_count, 1.0)
        side = np.where(known & (np.abs(away) > _AWAY * np.sqrt(self.variance)), np.sign(away), self.side)
        self.crossings += side * self.side < 0
        self.side = side

    def _since_jump(self) -> tuple[Floats, Floats]:
        """Mean and pace (1/step) of the serving model's quality since its last jump, or since it went live; (N,) each.

        The pace is of the younger half of these samples against the older half.
        """
        rows, top = self._rows, self.t + 1
        start = np.maximum(self.jump_at, self.live_at)
        total = self.sums[:, :, 0]
        count = top - start  # one or more
        half = count // 2
        middle = top - half
        first = (total[rows, middle] - total[rows, start]) / (count - half)
        second = (total[rows, top] - total[rows, middle]) / np.maximum(half, 1)
        mean = (total[rows, top] - total[rows, start]) / count
        return mean, np.where(half > 0, 2.0 * (second - first) / np.maximum(count, 4), 0.0)

    def observation(self) -> Floats:
        """The observations of the present step, (N, WIDTH)."""
        return np.concatenate([self._blocks(), self._dense()], axis=1)

    def _blocks(self) -> Floats:
        index = np.maximum(self.t[:, None] + 1 - _ENDS[None, :], 0)  # (N, BLOCKS + 1), newest first
        sums = self.sums[self._rows[:, None], index]  # (N, BLOCKS + 1, 5)
        size = index[:, :-1] - index[:, 1:]
        means = (sums[:, :-1] - sums[:, 1:]) / np.maximum(size, 1)[..., None]
        filled = (size > 0)[..., None]
        # relative to what is usual here: level and load of a service carry no message
        usual = self.sums[self._rows, self.t + 1] / (self.t + 1.0)[:, None]
        first_fresh = np.where(self.retrains > 0, self.former_fresh[:, 0], self.fresh)
        level = np.column_stack([self.fresh, usual[:, 1:5], first_fresh])
        means = np.where(filled, means - level[:, None, :], 0.0)
        means[..., 5] *= self._reevaluated()[:, None]
        age = (self.t - self.live_at + 1)[:, None]
        served = np.clip((age - _ENDS[None, :-1]) / _SIZES[None, :], 0.0, 1.0) * (size > 0)
        performance = np.stack([means[..., 0], served, means[..., 1], means[..., 2], means[..., 5]], axis=2)[:, ::-1]
        resources = means[:, ::-1, 3:5].transpose(0, 2, 1)
        return np.concatenate([performance.reshape(self.count, -1), resources.reshape(self.count, -1)], axis=1)

    def _reevaluated(self) -> Floats:
        """1 where former models are re-evaluated, or will be when there are some, (N,)."""
        known = self.reevaluates & ((self.retrains == 0) | np.isfinite(self.former_now[:, 0]))
        return np.asarray(known, dtype=np.float64)

    def _dense(self) -> Floats:
        t = self.t.astype(np.float64)
        cost = self.cost.min(axis=1)
        log_cost = np.log(cost)
        log_costs = np.log(self.cost)
        usual_price = self.log_price_sum / (t + 1.0)[:, None]
        age = t - self.live_at
        drop = self.fresh[:, None] - self.smooth
        known = self.models + (self.measured > 0)
        usual_fresh = (self.fresh_sum + self.fresh) / np.maximum(known, 1.0)
        spread = np.sqrt(
            np.maximum((self.fresh_squares + self.fresh**2) / np.maximum(known, 1.0) - usual_fresh**2, 0.0)
        )
        best_fresh = np.maximum(self.best_fresh, self.fresh)
        now = self.smooth[:, 1]
        n = np.maximum(self.measured, 1.0)
        spread_k = self.kk_sum - self.k_sum**2 / n
        slope = np.where(n >= 4, (self.ky_sum - self.k_sum * self.y_sum / n) / np.maximum(spread_k, 1e-6), 0.0)
        recent_pace = (self.smooth[:, 3] - self.smooth[:, 1]) / 8.0
        usual_pace = (self.pace_drop + drop[:, 1]) / np.maximum(self.pace_steps + self.measured, 4.0)
        since_jump = np.where(self.jumps + self.rises > 0, t - self.jump_at, t + 1.0)
        trained_after = np.maximum(self.data_to - self.jump_at, 0) * (self.jumps > 0)
        interval = np.maximum(t + 1.0, 1.0) / np.maximum(self.jumps + self.rises, 1.0)
        regret = self.measured * self.fresh - self.y_sum
        level_since, pace_since = self._since_jump()
        # what a steady decay at the usual pace would make worth it: half the pace times squared remaining time
        loss_pace = np.maximum(-slope, 0.0) + 1e-4
        columns = [
            log_cost,
            log_costs[:, 0] - log_costs[:, 1],
            log_costs[:, 0] - usual_price[:, 0],
            log_costs[:, 1] - usual_price[:, 1],
            self.log_delays[:, 0],
            self.log_delays[:, 1],
            t / 256.0,
            np.log1p(age),
            np.log1p(t - self.data_to),
            np.log1p(self.retrains),
            self.fresh,
            drop[:, 0],
            drop[:, 1],
            drop[:, 2],
            drop[:, 3],
            np.log(np.maximum(drop[:, 1], 0.002)) - log_cost,
            np.log(np.maximum(best_fresh - self.smooth[:, 2], 0.002)) - log_cost,
            np.clip(regret / cost, -8.0, 8.0),
            np.log(np.maximum(regret, 0.002)) - log_cost,
            usual_fresh - now,
            best_fresh - now,
            self.fresh - usual_fresh,
            spread,
            self.gain,
            np.clip(self.gain * 30.0 / cost, -8.0, 8.0),
            np.sqrt(self.variance),
            np.clip(slope * 100.0, -8.0, 8.0),
            np.clip(recent_pace * 100.0, -8.0, 8.0),
            np.clip(usual_pace * 100.0, -8.0, 8.0),
            np.clip((slope + recent_pace) * 100.0, -8.0, 8.0),
            self.step_change,
            np.log1p(since_jump),
            self.jump_size,
            self.fresh - level_since,
            np.clip(pace_since * 100.0, -8.0, 8.0),
            np.minimum(since_jump / interval, 8.0),
            np.log1p(self.jumps),
            np.log1p(self.rises),
            ((self.data_to > self.jump_at) & (self.jumps > 0)).astype(np.float64),
            np.log1p(trained_after),
            self.fresh - self.lowest,
            self.highest - now,
            np.log(loss_pace) - log_cost,
            now - self.lowest,
            self.best_rebound,
            (self.gain_sum + self.gain) / np.maximum(self.retrains, 1.0),
            *self._former_features(now, t, cost),
        ]
        return np.stack(columns, axis=1)

    def _former_features(self, now: Floats, t: Floats, cost: Floats) -> list[Floats]:
        """What re-evaluated models say; zero where there are none or nobody re-evaluates them."""
        known = np.isfinite(self.former_now) & (self.retrains > 0)[:, None]
        quality = np.where(known, self.former, now[:, None])
        drop = np.where(known, self.former_fresh - quality, 0.0)
        first = known[:, 0]
        low, high = np.where(first, self.first_low, 0.0), np.where(first, self.first_high, 0.0)
        return [
            self._reevaluated(),
            quality[:, 0] - now,
            quality[:, 1] - now,
            quality[:, 2] - now,
            drop[:, 0],
            drop[:, 1],
            np.where(first, quality[:, 0] - low, 0.0),
            high - low,
            np.clip(100.0 * drop[:, 1] / np.maximum(t - self.former_data[:, 1], 4.0), -8.0, 8.0),
            np.clip(self.paid_back / (cost * np.maximum(self.retrains, 1.0)), -8.0, 8.0),
            np.clip(self.paid_back_by_last / cost, -8.0, 8.0),
            self.in_vain / np.maximum(self.compared, 1.0),
            np.log1p(self.crossings),
        ]
