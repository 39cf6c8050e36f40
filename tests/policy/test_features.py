"""What the multi-stream observation says of a past in which quality comes and goes by itself."""

from __future__ import annotations

import numpy as np
import pytest

from policy.features import FEATURES, WIDTH
from policy.follow import build
from policy.history import Floats, History, Retrain

NAMES = [feature.name for feature in FEATURES]


def history(quality: Floats, retrained_at: int | None = None, own: Floats | None = None) -> History:
    """One service of that quality with a constant load."""
    steps = len(quality)
    flat = np.full(steps, 0.5)
    retrains = () if retrained_at is None else (Retrain(retrained_at, 0, retrained_at + 1, 1.0),)
    return History(
        step_minutes=10.0,
        value_usd_per_quality_hour=6.0,
        bleu=quality,
        accuracy=quality,
        request_rate_rps=flat,
        latency_s=flat,
        cpu=flat,
        memory=flat,
        price_usd_per_hour=np.ones((steps, 2)),
        train_hours=np.array([0.3, 0.3]),
        retrains=retrains,
        in_flight=False,
        own_quality=own,
    )


def seen(past: History) -> dict[str, float]:
    observed = build(past)
    assert observed.shape == (WIDTH,) and np.isfinite(observed).all()
    return dict(zip(NAMES, observed.tolist(), strict=True))


def wave(steps: int, period: float) -> Floats:
    rng = np.random.default_rng(3)
    return np.asarray(0.7 + 0.15 * np.cos(2.0 * np.pi * np.arange(steps) / period) + rng.normal(0.0, 0.02, steps))


@pytest.mark.parametrize("period", [20, 40])
def test_a_season_is_recognised_with_its_length(period: int) -> None:
    found = seen(history(wave(160, period)))
    # a period has two turns; the first extreme is where the record begins
    assert np.expm1(found["turns"]) == pytest.approx(2 * 160 / period, abs=1.5)
    assert np.expm1(found["log_between_turns"]) == pytest.approx(period / 2, rel=0.25)
    assert found["last_swing"] == pytest.approx(0.3, abs=0.12)


def test_a_steady_decline_turns_once_and_goes_on() -> None:
    rng = np.random.default_rng(4)
    found = seen(history(0.9 - 0.003 * np.arange(120) + rng.normal(0.0, 0.02, 120)))
    assert np.expm1(found["turns"]) == pytest.approx(1.0)
    assert found["way"] == -1.0
    assert found["swing"] == pytest.approx(0.36, abs=0.08)


def test_noise_alone_seldom_turns() -> None:
    turns = [
        np.expm1(seen(history(0.8 + np.random.default_rng(seed).normal(0.0, 0.03, 120)))["turns"]) for seed in range(10)
    ]
    assert np.mean(turns) < 4.0


def test_after_a_retrain_the_first_model_goes_on_telling() -> None:
    first = wave(160, 40)
    served = np.concatenate([first[:80], np.full(80, 0.85)])
    own = np.full((2, 160), np.nan)
    own[0], own[1, 80:] = first, 0.85
    told = seen(history(served, 79, own))
    silent = seen(history(served, 79))
    assert np.expm1(told["turns"]) == pytest.approx(8.0, abs=1.5)
    assert np.expm1(silent["turns"]) < np.expm1(told["turns"]) - 2.0


def test_a_new_model_is_no_turn() -> None:
    """Where nobody re-evaluates, its other level says nothing of the world."""
    quality = np.concatenate([np.full(60, 0.6), np.full(60, 0.9)])
    assert seen(history(quality, 59))["turns"] == 0.0
