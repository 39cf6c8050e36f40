"""What the tracker says about a service's past."""

from __future__ import annotations

import numpy as np
import pytest

from policy.history import Floats
from policy.observation.multistream import DENSE, observations
from policy.observation.tracker import FORMER, Tracker

_NAMES = [feature.name for feature in DENSE]


def _follow(
    quality: list[float], live_at: int | None = None, first: list[float] | None = None, reevaluates: bool = True
) -> Tracker:
    """A service that measured `quality`, (T,), one step after the other; a new model serves from `live_at`, and from
    then on the first one, re-evaluated, has the quality `first`.
    """
    tracker = Tracker(1)
    tracker.configure(np.arange(1), np.ones(1), np.full((1, 2), 2.0), np.full(1, reevaluates))
    one = np.ones(1)
    for t, value in enumerate(quality):
        live = np.array([t == live_at])
        former = np.full((1, FORMER), np.nan)
        if first and live_at is not None and t >= live_at:
            former[0, :2] = first[t - live_at]
        tracker.push(
            np.array([value]), one, one, 0.5 * one, 0.5 * one, np.full((1, 2), 1.5), live, np.array([t - 2]), former
        )
    return tracker


def _dense(tracker: Tracker) -> dict[str, float]:
    values: Floats = observations(tracker)[0, -len(DENSE) :]
    return dict(zip(_NAMES, values.tolist(), strict=True))


@pytest.mark.parametrize("before", [1, 2, 3, 4, 5, 6, 7])
def test_a_fall_in_the_first_steps_is_a_fall_not_what_the_model_is_worth(before: int) -> None:
    said = _dense(_follow([0.9] * before + [0.5] * 20))
    assert said["fresh_quality"] == pytest.approx(0.9, abs=0.011)
    assert said["jumps"] == pytest.approx(np.log(2.0))
    assert said["level_since_jump"] == pytest.approx(0.4, abs=0.02)
    assert said["regret_over_cost"] == pytest.approx(0.4 * 20 / 1.5, rel=0.05)
    assert np.expm1(said["log_since_jump"]) == pytest.approx(19.0, abs=1.01)


@pytest.mark.parametrize("before", [2, 3, 5, 6, 20])
def test_a_jump_has_its_full_size_and_its_own_step(before: int) -> None:
    said = _dense(_follow([0.9] * before + [0.5] * 10))
    assert said["jump_size"] == pytest.approx(-0.4, abs=0.02)
    assert np.expm1(said["log_since_jump"]) == pytest.approx(9.0)
    assert said["level_since_jump"] == pytest.approx(0.4, abs=0.001)


def test_a_fall_right_after_a_rise_is_not_missed() -> None:
    measured = [0.88, 0.84, 0.86, 0.87, 0.93, 0.97, 0.53, 0.53, 0.53, 0.53]
    said = _dense(_follow(measured))
    assert said["rises"] == said["jumps"] == pytest.approx(np.log(2.0))
    assert said["jump_size"] == pytest.approx(-0.36, abs=0.02)
    assert np.expm1(said["log_since_jump"]) == pytest.approx(3.0)


def test_the_end_of_a_short_spell_is_a_rise() -> None:
    said = _dense(_follow([0.9] * 20 + [0.5] * 5 + [0.9] * 4))
    assert said["rises"] == said["jumps"] == pytest.approx(np.log(2.0))
    assert np.expm1(said["log_since_jump"]) == pytest.approx(3.0)


def test_a_larger_fall_soon_after_the_first_is_another() -> None:
    said = _dense(_follow([0.9] * 20 + [0.8] * 5 + [0.4] * 4))
    assert said["jumps"] == pytest.approx(np.log(3.0))
    assert np.expm1(said["log_since_jump"]) == pytest.approx(3.0)


def test_a_fall_of_a_new_model_is_another_than_that_of_the_one_before() -> None:
    said = _dense(_follow([0.9] * 20 + [0.5] + [0.9] + [0.3] * 6, live_at=21))
    assert said["jumps"] == pytest.approx(np.log(3.0))


def test_the_gain_of_a_retrain_is_from_before_the_next_fall() -> None:
    said = _dense(_follow([0.9] * 10 + [0.5] * 20 + [0.9] * 3 + [0.3] * 10, live_at=30))
    assert said["last_gain"] == pytest.approx(0.4, abs=0.02)
    assert said["fresh_quality"] == pytest.approx(0.9, abs=0.01)


def test_a_model_whose_first_measurement_is_missing_is_worth_what_was_measured_of_it() -> None:
    said = _dense(_follow([0.5] * 10 + [np.nan] + [0.9] * 10, live_at=10))
    assert said["fresh_quality"] == pytest.approx(0.9)


def test_noise_is_no_jump() -> None:
    rng = np.random.default_rng(0)
    said = _dense(_follow((0.8 + 0.03 * rng.standard_normal(60)).tolist()))
    assert said["jumps"] == 0.0
    assert said["fresh_quality"] == pytest.approx(0.8, abs=0.04)


def test_a_steady_decline_has_a_pace_and_a_level() -> None:
    said = _dense(_follow([0.9 - 0.002 * t for t in range(41)]))
    assert said["jumps"] == 0.0
    assert said["pace_since_jump"] == pytest.approx(-0.2, abs=0.02)  # percent of quality a step
    assert said["level_since_jump"] == pytest.approx(0.895 - 0.86, abs=0.002)


def test_a_retrain_pays_back_what_the_first_model_would_have_lost_since() -> None:
    measured = [0.9] * 10 + [0.5] * 10 + [0.9] * 20
    first = [0.5] * 10 + [0.95] * 10
    said = _dense(_follow(measured, live_at=20, first=first))
    assert said["paid_back"] == said["paid_back_by_last"] == pytest.approx((0.4 * 10 - 0.05 * 10) / 1.5)
    assert said["in_vain"] == pytest.approx(0.15)  # in 10 of 20 steps it was as good, seen 7 late
    unknown = _dense(_follow(measured, live_at=20))
    assert unknown["paid_back"] == unknown["paid_back_by_last"] == unknown["in_vain"] == 0.0


def test_a_world_that_comes_and_goes_crosses_its_mean() -> None:
    round_ = [0.7 + 0.2 * np.sin(2.0 * np.pi * t / 20.0) for t in range(80)]
    assert np.expm1(_dense(_follow(round_))["crossings"]) == pytest.approx(7.0, abs=1.01)
    # a new model does not change where the world is: the first one still tells
    renewed = _follow(round_[:30] + [0.9] * 50, live_at=30, first=round_[30:])
    assert np.expm1(_dense(renewed)["crossings"]) == pytest.approx(7.0, abs=1.01)
    assert np.expm1(_dense(_follow([0.9 - 0.005 * t for t in range(80)]))["crossings"]) <= 1.01


def test_whether_former_models_are_re_evaluated_is_said_before_there_are_any() -> None:
    assert _dense(_follow([0.9] * 5))["reevaluated"] == 1.0
    assert _dense(_follow([0.9] * 5, reevaluates=False))["reevaluated"] == 0.0
    # promised, but not done
    assert _dense(_follow([0.9] * 10, live_at=5))["reevaluated"] == 0.0
