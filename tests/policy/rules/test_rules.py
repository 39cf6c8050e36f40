from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from policy.history import History, Retrain
from policy.rules.cusum import cusum
from policy.rules.tuned import bucket_of, load, parameters_for
from policy.training.baselines.registry import BASELINES, make

#: rules that watch quality, with parameters under which a drop of 0.3 from 0.8 must matter
WATCHING = {
    "threshold": {"drop": 0.1, "window": 4},
    "adwin": {"delta": 0.5},
    "kswin": {"alpha": 0.01, "recent": 8, "window": 24},
    "page-hinkley": {"limit": 0.5, "slack": 0.005},
    "cusum": {"limit": 1.0, "slack": 0.01, "window": 4},
    "cara-t": {"tau": 0.1, "window": 2},
    "cara-ct": {"tau": 1.0, "window": 2},
    "regret": {"k": 1.0, "window": 4},
    "modyn": {"k": 0.05, "window": 4},
}


def history(quality: Sequence[float], *retrains: Retrain, price: float = 4.0) -> History:
    values = np.asarray(quality, dtype=np.float64)
    flat = np.full(len(values), 0.5)
    return History(
        step_minutes=10.0,
        value_usd_per_quality_hour=6.0,  # a point of quality is worth 1 dollar a step
        bleu=values,
        accuracy=values,
        request_rate_rps=flat,
        latency_s=flat,
        cpu=flat,
        memory=flat,
        price_usd_per_hour=np.tile([price, price * 1.1], (len(values), 1)),
        train_hours=np.array([0.5, 0.5]),
        retrains=retrains,
        in_flight=False,
    )


def first_alarm(name: str, quality: Sequence[float], **parameters: float) -> int | None:
    decider = make(name, **parameters)
    decider.reset(0)
    return next((t for t in range(len(quality)) if decider.decide(history(quality[: t + 1]))), None)


@pytest.mark.parametrize("name", sorted(WATCHING))
def test_a_drop_is_noticed_soon_and_a_steady_service_is_left_alone(name: str) -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.005, 80)
    steady = 0.8 + noise
    dropped = steady - np.where(np.arange(80) >= 40, 0.3, 0.0)
    assert first_alarm(name, list(steady), **WATCHING[name]) is None
    alarm = first_alarm(name, list(dropped), **WATCHING[name])
    assert alarm is not None
    assert 40 <= alarm <= 60


@pytest.mark.parametrize("name", sorted(WATCHING))
def test_a_better_model_is_not_drift(name: str) -> None:
    assert first_alarm(name, [0.5] * 40 + [0.8] * 40, **WATCHING[name]) is None


@pytest.mark.parametrize("name", sorted(WATCHING))
def test_only_what_the_serving_model_did_counts(name: str) -> None:
    before, after = [0.8] * 40 + [0.4] * 10, [0.8] * 3
    retrained = Retrain(started=46, cloud=0, live=50, cost_usd=2.0)
    assert make(name, **WATCHING[name]).decide(history(before + after, retrained)) == 0


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"retrainopt-learned", "upf", "amuse"}))
def test_a_fresh_instance_decides_like_one_that_saw_all_of_it(name: str) -> None:
    quality = list(0.8 - 0.004 * np.arange(90) + np.random.default_rng(0).normal(0.0, 0.02, 90))
    followed = make(name)
    followed.reset(0)
    acted = [followed.decide(history(quality[: t + 1])) for t in range(90)]
    fresh = make(name)
    fresh.reset(0)
    assert fresh.decide(history(quality)) == acted[-1]


@pytest.mark.parametrize("name", sorted(WATCHING))
def test_missing_measurements_neither_crash_nor_count_as_zero(name: str) -> None:
    quality = [0.8] * 30 + [float("nan")] * 20
    assert first_alarm(name, quality, **WATCHING[name]) is None
    assert first_alarm(name, [float("nan")] * 20, **WATCHING[name]) is None


def test_regret_waits_longer_when_a_retrain_is_dearer() -> None:
    quality = [0.8] * 4 + [0.7] * 200
    cheap, dear = (
        next(t for t in range(204) if make("regret", k=1.0, window=4).decide(history(quality[: t + 1], price=price)))
        for price in (4.0, 20.0)
    )
    assert cheap == 4 + 20 - 1  # 2 dollars at 0.1 dollars a step
    assert dear == 4 + 100 - 1


def test_cusum_forgets_gains() -> None:
    assert cusum(np.array([-5.0, 1.0, 1.0])) == 2.0
    assert cusum(np.array([1.0, -5.0])) == 0.0


def test_cara_periodic_makes_up_for_a_step_in_flight() -> None:
    rule = make("cara-p", phi=10, offset=5)
    due = [t for t in range(30) if rule.decide(history([0.8] * (t + 1)))]
    assert due[0] == 5
    started = Retrain(started=5, cloud=0, live=8, cost_usd=1.0)
    assert [t for t in range(9, 30) if rule.decide(history([0.8] * (t + 1), started))][0:1] == [15]


def test_tuned_parameters_depend_on_the_cost_ratio() -> None:
    tuned = load()
    assert bucket_of(0.1, tuned["edges"]) == 0
    assert bucket_of(1e6, tuned["edges"]) == len(tuned["edges"])
    assert parameters_for("regret", 0.1) != parameters_for("regret", 1e6)
    cheap = history([0.8] * 5 + [0.6] * 60, price=0.5)
    assert make("rule").decide(cheap) == 1
    assert make("rule").decide(replace(cheap, price_usd_per_hour=cheap.price_usd_per_hour * 1e4)) == 0
