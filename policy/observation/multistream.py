"""The multi-stream observation: what a service's past says about the worth of a retrain, in scale-free numbers.

`observations` makes one row per service that a `policy.observation.tracker.Tracker` follows, float64 (N, WIDTH); the
live path replays its history through one (`policy.observation.follow`), so training and live see the same numbers:

    performance  (BLOCKS, 5)  for the GRU, oldest first: quality, share of the serving model, latency, request rate,
                              quality of the first model, re-evaluated
    resources    (2, BLOCKS)  for the convolution: CPU, memory
    deployment   (len(DENSE),) for the dense layers: see DENSE

A block is the mean over 1, 1, 2, 4, 8, 24, 80 steps back from the present: fine for what just happened,
coarse for what is long past. Models that served before may be re-evaluated at each step: they are fixed points against
which the world is seen to move. Where nobody does that, these features say so and are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from policy.history import Floats
from policy.observation.paper import OBSERVATION, Feature
from policy.observation.tracker import Tracker

#: steps per block, newest first
_SIZES: Final = np.array([1, 1, 2, 4, 8, 24, 80])
_ENDS: Final = np.concatenate([[0], np.cumsum(_SIZES)])
BLOCKS: Final = len(_SIZES)
PERFORMANCE: Final = 5
RESOURCES: Final = 2

_ONE = "1"


class _Terms:
    """What dense features are made of, (N,) each unless said otherwise; `s` is what is known of the services."""

    def __init__(self, s: Tracker) -> None:
        t = self.t = s.t.astype(np.float64)
        # money, in points of quality x steps
        cost = self.cost = s.cost.min(axis=1)
        self.log_cost = np.log(cost)
        self.log_costs = np.log(s.cost)  # (N, 2)
        self.usual_price = s.log_price_sum / (t + 1.0)[:, None]  # (N, 2)
        # quality of the serving model, against what it and others were worth when new
        self.age = t - s.live_at
        self.drop = s.fresh[:, None] - s.smooth  # (N, spans)
        known = s.models + (s.measured > 0)
        self.usual_fresh = (s.fresh_sum + s.fresh) / np.maximum(known, 1.0)
        squares = (s.fresh_squares + s.fresh**2) / np.maximum(known, 1.0)
        self.spread = np.sqrt(np.maximum(squares - self.usual_fresh**2, 0.0))
        self.best_fresh = np.maximum(s.best_fresh, s.fresh)
        self.known_gain = self.best_fresh - s.smooth[:, 2]
        self.now = s.smooth[:, 1]
        self.regret = s.measured * s.fresh - s.y_sum
        # how fast it falls
        n = np.maximum(s.measured, 1.0)
        spread_k = s.kk_sum - s.k_sum**2 / n
        self.slope = np.where(n >= 4, (s.ky_sum - s.k_sum * s.y_sum / n) / np.maximum(spread_k, 1e-6), 0.0)
        self.recent_pace = (s.smooth[:, 3] - s.smooth[:, 1]) / 8.0
        self.usual_pace = (s.pace_drop + self.drop[:, 1]) / np.maximum(s.pace_steps + s.measured, 4.0)
        # what a steady decay at the usual pace would make worth it: half the pace times squared remaining time
        self.loss_pace = np.maximum(-self.slope, 0.0) + 1e-4
        # since its last jump
        self.since_jump = np.where(s.jumps + s.rises > 0, t - s.jump_at, t + 1.0)
        self.trained_after = np.maximum(s.data_to - s.jump_at, 0) * (s.jumps > 0)
        self.trained_since_jump = ((s.data_to > s.jump_at) & (s.jumps > 0)).astype(np.float64)
        self.interval = np.maximum(t + 1.0, 1.0) / np.maximum(s.jumps + s.rises, 1.0)
        self.level_since, self.pace_since = s.since_jump()
        # what re-evaluated models say; zero where there are none or nobody re-evaluates them
        self.reevaluated = s.reevaluated()
        former = np.isfinite(s.former_now) & (s.retrains > 0)[:, None]  # (N, FORMER), as the next two
        self.former_quality = np.where(former, s.former, self.now[:, None])
        self.former_drop = np.where(former, s.former_fresh - self.former_quality, 0.0)
        first = former[:, 0]
        low, high = np.where(first, s.first_low, 0.0), np.where(first, s.first_high, 0.0)
        self.first_rebound = np.where(first, self.former_quality[:, 0] - low, 0.0)
        self.first_range = high - low
        self.paid_back = s.paid_back / (cost * np.maximum(s.retrains, 1.0))
        self.former_pace = 100.0 * self.former_drop[:, 1] / np.maximum(t - s.former_data[:, 1], 4.0)

    def log_over_cost(self, gain: Floats) -> Floats:
        """ln(gain / cost of a retrain), (N,); a gain counts as 0.002 points at least."""
        return np.asarray(np.log(np.maximum(gain, 0.002)) - self.log_cost)


@dataclass(frozen=True, slots=True)
class Dense(Feature):
    """A feature of the deployment stream: how it is computed, (N,), from what is known and the shared terms."""

    compute: Callable[[Tracker, _Terms], Floats]


#: name, unit, lowest and highest believed value, and the function, in the order of the observation
DENSE: Final[tuple[Dense, ...]] = (
    Dense("log_retrain_cost", "ln(points x steps)", -1.5, 6.0, lambda s, x: x.log_cost),
    Dense("log_cost_ratio_of_clouds", "ln", -3.0, 3.0, lambda s, x: x.log_costs[:, 0] - x.log_costs[:, 1]),
    Dense("log_price_now_over_usual_aws", "ln", -2.0, 2.0, lambda s, x: x.log_costs[:, 0] - x.usual_price[:, 0]),
    Dense("log_price_now_over_usual_azure", "ln", -2.0, 2.0, lambda s, x: x.log_costs[:, 1] - x.usual_price[:, 1]),
    Dense("log_delay_aws", "ln(steps)", 0.0, 4.0, lambda s, x: s.log_delays[:, 0]),
    Dense("log_delay_azure", "ln(steps)", 0.0, 4.0, lambda s, x: s.log_delays[:, 1]),
    Dense("time", "256 steps", 0.0, 1e6, lambda s, x: x.t / 256.0),
    Dense("log_age", "ln(steps)", 0.0, 14.0, lambda s, x: np.log1p(x.age)),
    Dense("log_data_age", "ln(steps)", 0.0, 14.0, lambda s, x: np.log1p(x.t - s.data_to)),
    Dense("retrains", "ln(1 + count)", 0.0, 7.0, lambda s, x: np.log1p(s.retrains)),
    Dense("fresh_quality", _ONE, -0.2, 1.2, lambda s, x: s.fresh),
    Dense("drop_2", _ONE, -1.2, 1.2, lambda s, x: x.drop[:, 0]),
    Dense("drop_4", _ONE, -1.2, 1.2, lambda s, x: x.drop[:, 1]),
    Dense("drop_8", _ONE, -1.2, 1.2, lambda s, x: x.drop[:, 2]),
    Dense("drop_20", _ONE, -1.2, 1.2, lambda s, x: x.drop[:, 3]),
    Dense("log_gain_over_cost", "ln", -12.0, 6.0, lambda s, x: x.log_over_cost(x.drop[:, 1])),
    Dense("log_known_gain_over_cost", "ln", -12.0, 6.0, lambda s, x: x.log_over_cost(x.known_gain)),
    Dense("regret_over_cost", _ONE, -8.0, 8.0, lambda s, x: np.clip(x.regret / x.cost, -8.0, 8.0)),
    Dense("log_regret_over_cost", "ln", -12.0, 8.0, lambda s, x: x.log_over_cost(x.regret)),
    Dense("usual_fresh_minus_now", _ONE, -1.2, 1.2, lambda s, x: x.usual_fresh - x.now),
    Dense("best_fresh_minus_now", _ONE, -1.2, 1.2, lambda s, x: x.best_fresh - x.now),
    Dense("fresh_minus_usual", _ONE, -1.2, 1.2, lambda s, x: s.fresh - x.usual_fresh),
    Dense("spread_of_fresh", _ONE, 0.0, 1.0, lambda s, x: x.spread),
    Dense("last_gain", _ONE, -1.2, 1.2, lambda s, x: s.gain),
    Dense("last_gain_over_cost", _ONE, -8.0, 8.0, lambda s, x: np.clip(s.gain * 30.0 / x.cost, -8.0, 8.0)),
    Dense("noise_sd", _ONE, 0.0, 0.5, lambda s, x: np.sqrt(s.variance)),
    Dense("pace_of_this_model", "1/step", -8.0, 8.0, lambda s, x: np.clip(x.slope * 100.0, -8.0, 8.0)),
    Dense("pace_recent", "1/step", -8.0, 8.0, lambda s, x: np.clip(x.recent_pace * 100.0, -8.0, 8.0)),
    Dense("usual_pace", "1/step", -8.0, 8.0, lambda s, x: np.clip(x.usual_pace * 100.0, -8.0, 8.0)),
    Dense("curvature", "1/step", -8.0, 8.0, lambda s, x: np.clip((x.slope + x.recent_pace) * 100.0, -8.0, 8.0)),
    Dense("jump_now", _ONE, -1.2, 1.2, lambda s, x: s.step_change),
    Dense("log_since_jump", "ln(steps)", 0.0, 14.0, lambda s, x: np.log1p(x.since_jump)),
    Dense("jump_size", _ONE, -1.2, 1.2, lambda s, x: s.jump_size),
    Dense("level_since_jump", _ONE, -1.2, 1.2, lambda s, x: s.fresh - x.level_since),
    Dense("pace_since_jump", "1/step", -8.0, 8.0, lambda s, x: np.clip(x.pace_since * 100.0, -8.0, 8.0)),
    Dense("since_jump_over_interval", _ONE, 0.0, 8.0, lambda s, x: np.minimum(x.since_jump / x.interval, 8.0)),
    Dense("jumps", "ln(1 + count)", 0.0, 7.0, lambda s, x: np.log1p(s.jumps)),
    Dense("rises", "ln(1 + count)", 0.0, 7.0, lambda s, x: np.log1p(s.rises)),
    Dense("trained_since_jump", _ONE, 0.0, 1.0, lambda s, x: x.trained_since_jump),
    Dense("log_trained_after_jump", "ln(steps)", 0.0, 14.0, lambda s, x: np.log1p(x.trained_after)),
    Dense("lowest_since_live", _ONE, -1.2, 1.2, lambda s, x: s.fresh - s.lowest),
    Dense("highest_since_live", _ONE, -1.2, 1.2, lambda s, x: s.highest - x.now),
    Dense("half_cost_pace", "ln", -12.0, 8.0, lambda s, x: np.log(x.loss_pace) - x.log_cost),
    Dense("rebound", _ONE, -1.2, 1.2, lambda s, x: x.now - s.lowest),
    Dense("best_rebound", _ONE, -1.2, 1.2, lambda s, x: s.best_rebound),
    Dense("mean_gain", _ONE, -1.2, 1.2, lambda s, x: (s.gain_sum + s.gain) / np.maximum(s.retrains, 1.0)),
    Dense("reevaluated", _ONE, 0.0, 1.0, lambda s, x: x.reevaluated),
    Dense("first_model_minus_now", _ONE, -1.2, 1.2, lambda s, x: x.former_quality[:, 0] - x.now),
    Dense("previous_model_minus_now", _ONE, -1.2, 1.2, lambda s, x: x.former_quality[:, 1] - x.now),
    Dense("model_before_minus_now", _ONE, -1.2, 1.2, lambda s, x: x.former_quality[:, 2] - x.now),
    Dense("first_model_drop", _ONE, -1.2, 1.2, lambda s, x: x.former_drop[:, 0]),
    Dense("previous_model_drop", _ONE, -1.2, 1.2, lambda s, x: x.former_drop[:, 1]),
    Dense("first_model_rebound", _ONE, -1.2, 1.2, lambda s, x: x.first_rebound),
    Dense("first_model_range", _ONE, -1.2, 1.2, lambda s, x: x.first_range),
    Dense("previous_model_pace", "1/step", -8.0, 8.0, lambda s, x: np.clip(x.former_pace, -8.0, 8.0)),
    Dense("paid_back", _ONE, -8.0, 8.0, lambda s, x: np.clip(x.paid_back, -8.0, 8.0)),
    Dense("paid_back_by_last", _ONE, -8.0, 8.0, lambda s, x: np.clip(s.paid_back_by_last / x.cost, -8.0, 8.0)),
    Dense("in_vain", _ONE, 0.0, 1.0, lambda s, x: s.no_better / np.maximum(s.compared, 1.0)),
    Dense("crossings", "ln(1 + count)", 0.0, 7.0, lambda s, x: np.log1p(s.crossings)),
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
    stream = [Feature(f"{n}_{block}", _ONE, low, high) for block in oldest_first for n, low, high in performance]
    stream += [Feature(f"{n}_{block}", _ONE, low, high) for n, low, high in resources for block in oldest_first]
    return tuple(stream)


#: every feature in the order of the observation
FEATURES: Final[tuple[Feature, ...]] = (*_block_features(), *DENSE)
WIDTH: Final = len(FEATURES)


def features_of(observation: str) -> tuple[Feature, ...]:
    """The features of an observation, "paper" or "multistream", in order."""
    return OBSERVATION if observation == "paper" else FEATURES


def observations(s: Tracker) -> Floats:
    """The observations of the present step, (N, WIDTH), of the services that a tracker follows."""
    terms = _Terms(s)
    dense = np.stack([feature.compute(s, terms) for feature in DENSE], axis=1)
    return np.concatenate([_blocks(s), dense], axis=1)


def _blocks(s: Tracker) -> Floats:
    """Means over blocks of steps, in the layout of the performance and resources streams, (N, columns)."""
    index = np.maximum(s.t[:, None] + 1 - _ENDS[None, :], 0)  # (N, BLOCKS + 1), newest first
    sums = s.sums[s.rows[:, None], index]  # (N, BLOCKS + 1, 5)
    size = index[:, :-1] - index[:, 1:]
    means = (sums[:, :-1] - sums[:, 1:]) / np.maximum(size, 1)[..., None]
    filled = (size > 0)[..., None]
    # relative to what is usual here: level and load of a service carry no message
    usual = s.sums[s.rows, s.t + 1] / (s.t + 1.0)[:, None]
    first_fresh = np.where(s.retrains > 0, s.former_fresh[:, 0], s.fresh)
    level = np.column_stack([s.fresh, usual[:, 1:5], first_fresh])
    means = np.where(filled, means - level[:, None, :], 0.0)
    means[..., 5] *= s.reevaluated()[:, None]
    age = (s.t - s.live_at + 1)[:, None]
    served = np.clip((age - _ENDS[None, :-1]) / _SIZES[None, :], 0.0, 1.0) * (size > 0)
    performance = np.stack([means[..., 0], served, means[..., 1], means[..., 2], means[..., 5]], axis=2)[:, ::-1]
    resources = means[:, ::-1, 3:5].transpose(0, 2, 1)
    return np.concatenate([performance.reshape(s.count, -1), resources.reshape(s.count, -1)], axis=1)
