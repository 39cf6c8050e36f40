from dataclasses import replace

import numpy as np
import pytest

from policy.history import History, Retrain
from policy.training.baselines.registry import decider_for
from policy.training.evaluation.own_history import answer, history_of_window
from policy.training.simulator.decay import MIN_MEASURED, fit
from shared.contracts import MetricWindow, Series
from shared.errors import InvalidInputError, NoSamplesError
from shared.settings import Settings

STEPS = 160


def service(noise_sd: float = 0.01, per_step: float = 0.003, seed: int = 0) -> History:
    """A service that loses `per_step` of quality a step since its data, retrained at 60 and 120."""
    retrains = tuple(Retrain(started=t, cloud=0, live=t + 3, cost_usd=2.0) for t in (60, 120))
    trained = np.zeros(STEPS)
    for retrain in retrains:
        trained[retrain.live :] = retrain.started
    rng = np.random.default_rng(seed)
    quality = 0.8 - per_step * (np.arange(STEPS) - trained)
    flat = np.full(STEPS, 0.5)
    return History(
        step_minutes=10.0,
        value_usd_per_quality_hour=6.0,
        bleu=quality + rng.normal(0.0, noise_sd, STEPS),
        accuracy=quality + rng.normal(0.0, noise_sd, STEPS),
        request_rate_rps=flat,
        latency_s=flat,
        cpu=flat,
        memory=flat,
        price_usd_per_hour=np.full((STEPS, 2), 4.0),
        train_hours=np.array([0.5, 0.5]),
        retrains=retrains,
        in_flight=False,
    )


def test_the_fitted_matrix_is_the_world_that_made_the_history() -> None:
    trace = fit(service()).trace()
    i, j = np.triu_indices(STEPS)
    seen = j - i <= 60  # older than that no model of the history became
    i, j = i[seen], j[seen]
    truth = 0.8 - 0.003 * (j - i)
    assert np.abs(trace.quality[i, j] - truth).mean() < 0.02
    assert np.isnan(trace.quality[5, 4])


def test_what_was_never_seen_is_not_believed() -> None:
    trace = fit(service()).trace(beyond=0.25)
    assert trace.quality[0, -1] > 0.8 - 1.3 * 0.003 * 64  # a model lost 64 steps' worth at most


def test_noise_does_not_pass_for_drift() -> None:
    fitted = fit(service(noise_sd=0.03, per_step=0.0))
    assert fitted.bleu.lost[-1] < 0.05


def test_the_fit_says_how_good_it_is() -> None:
    good = fit(service())
    assert good.r_squared > 0.9
    assert good.residual_sd == pytest.approx(0.01 / np.sqrt(2), rel=0.3)
    wild = service()
    wandering = 0.5 + 0.3 * np.sin(np.arange(STEPS) / 5.0)
    assert fit(replace(wild, bleu=wandering, accuracy=wandering)).r_squared < 0.6


def test_a_short_or_patchy_history_is_refused_with_the_reason() -> None:
    full = service()
    short = {
        name: getattr(full, name)[: MIN_MEASURED - 1]
        for name in ("bleu", "accuracy", "request_rate_rps", "latency_s", "cpu", "memory", "price_usd_per_hour")
    }
    with pytest.raises(InvalidInputError, match=f"history too short: .* at least {MIN_MEASURED}"):
        fit(replace(full, **short, retrains=()))
    patchy = np.where(np.arange(STEPS) % 3 == 0, full.bleu, np.nan)
    with pytest.raises(InvalidInputError, match="too many gaps"):
        fit(replace(full, bleu=patchy))


def test_the_answer_compares_with_what_was_done() -> None:
    found = answer(service(), ["never", "oracle"], decider_for)
    assert found.actual_starts == (60, 120)
    assert found.modelled_cost_usd == pytest.approx(found.actual_cost_usd, rel=0.02)
    never, best = found.answers
    assert never.saved_usd < 0 < best.saved_usd
    assert best.saved_low_usd <= best.saved_usd <= best.saved_high_usd * 1.2
    assert never.starts == ()


def window(**series: Series) -> MetricWindow:
    return MetricWindow(service="qa", start_s=0.0, end_s=6000.0, step_s=600.0, series=series)


def test_retrains_are_read_off_the_redeploy_counter() -> None:
    times = tuple(600.0 * t for t in range(11))
    flat = Series(times, (0.5,) * 11)
    counter = Series(times, (0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0))  # restarted in between
    history = history_of_window(window(bleu=flat, accuracy=flat, redeploys=counter), Settings(train_hours_aws=0.25))
    assert [(r.started, r.live) for r in history.retrains] == [(1, 3), (5, 7)]
    assert np.isnan(history.cpu).all()


def test_what_is_measured_as_models_swap_is_of_neither() -> None:
    times = tuple(600.0 * t for t in range(11))
    # the new model serves from step 4 on, where the scrape still finds the old one's quality
    quality = Series(times, (0.5,) * 5 + (0.9,) * 6)
    missed = Series(times[:5] + times[6:], quality.values[:5] + quality.values[6:])
    counter = Series(times, (0.0,) * 4 + (1.0,) * 7)
    history = history_of_window(window(bleu=quality, accuracy=missed, cpu=quality, redeploys=counter), Settings())
    assert [r.live for r in history.retrains] == [4]
    np.testing.assert_array_equal(history.bleu, [0.5] * 4 + [np.nan] + [0.9] * 6)
    np.testing.assert_array_equal(history.accuracy, [0.5] * 4 + [np.nan] * 2 + [0.9] * 5)  # no line to the new model
    np.testing.assert_array_equal(history.cpu, quality.values)  # which is the machine's


def test_two_counters_that_rise_in_one_stretch_are_one_swap() -> None:
    times = tuple(600.0 * t for t in range(11))
    flat = Series(times, (0.5,) * 11)
    sparse = Series((0.0, 3000.0, 6000.0), (0.0, 1.0, 1.0))
    dense = Series(times, (0.0,) * 3 + (1.0,) * 8)
    history = history_of_window(window(bleu=flat, accuracy=flat, redeploys=dense, static_retrains=sparse), Settings())
    assert list(np.flatnonzero(np.isnan(history.bleu))) == [1, 2, 3, 4, 5]


def test_without_quality_there_is_nothing_to_say() -> None:
    with pytest.raises(NoSamplesError, match="accuracy of service qa"):
        history_of_window(window(bleu=Series((0.0,), (0.5,))), Settings())
