"""Scraped series become a history: gaps, outliers and job records."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest

from policy.observation.live import METRICS, history_of, interpolate, query, window_of
from policy.observation.paper import observe
from shared.contracts import JobRecord, JobStatus, MetricWindow, Series
from shared.errors import MetricsError, NoSamplesError
from shared.settings import Settings

END = 10_000.0
STEP = 60.0
SETTINGS = Settings()


def window(changed: dict[str, Series] | None = None, steps: int = 10) -> MetricWindow:
    times = tuple(END - STEP * (steps - 1 - k) for k in range(steps))
    levels = {"cpu": 0.4, "memory": 0.5, "request_rate": 3.0, "latency": 0.1, "bleu": 0.8, "accuracy": 0.6}
    series = {name: Series(times, (level,) * steps) for name, level in levels.items()} | (changed or {})
    return MetricWindow(service="qa", start_s=times[0], end_s=END, step_s=STEP, series=series)


def test_short_gaps_are_straight_lines_and_long_ones_stay_missing() -> None:
    series = Series((0.0, 60.0, 240.0, 1000.0), (1.0, 2.0, 5.0, 9.0))
    grid = np.array([-60.0, 0.0, 60.0, 120.0, 180.0, 240.0, 300.0, 1000.0, 1060.0, 1300.0])
    np.testing.assert_allclose(
        interpolate(series, grid, 200.0), [math.nan, 1, 2, 3, 4, 5, math.nan, 9, 9, math.nan], equal_nan=True
    )


def test_a_sample_that_is_not_a_number_is_missing_not_zero() -> None:
    series = Series((0.0, 60.0, 120.0), (1.0, math.nan, 3.0))
    np.testing.assert_allclose(interpolate(series, np.array([60.0]), 120.0), [2.0])
    assert np.isnan(interpolate(series, np.array([60.0]), 60.0)).all()


def test_history_in_plain_units() -> None:
    seen = history_of(window(), (), SETTINGS, END)
    assert seen.t == 9
    assert seen.step_minutes == 1.0
    np.testing.assert_allclose(seen.quality, 0.7)
    np.testing.assert_allclose(seen.price_usd_per_hour[-1], [0.8218 * 0.46, 0.658])
    assert not seen.in_flight


def test_the_history_starts_where_every_metric_has_begun() -> None:
    late = tuple(END - STEP * k for k in (3, 2, 1, 0))
    assert history_of(window({"bleu": Series(late, (0.8,) * 4)}), (), SETTINGS, END).t == 3


def test_the_present_may_be_a_little_after_the_last_sample() -> None:
    times = tuple(END - STEP * k - 20 for k in range(9, -1, -1))
    seen = history_of(window({"bleu": Series(times, (0.8,) * 10)}), (), SETTINGS, END)
    assert seen.bleu[-1] == 0.8


@pytest.mark.parametrize("metric", ["cpu", "memory", "request_rate", "latency", "bleu", "accuracy"])
def test_each_metric_is_required_and_named(metric: str) -> None:
    with pytest.raises(NoSamplesError, match=f"{metric} of service qa"):
        history_of(window({metric: Series((), ())}), (), SETTINGS, END)
    with pytest.raises(MetricsError, match=f"^{metric} is stale"):
        history_of(window({metric: Series((END - 301.0,), (0.5,))}), (), SETTINGS, END)


def test_the_reason_that_the_metric_store_knows_is_in_the_error() -> None:
    known = {"missing": {"cpu": "another tool has set the label", "latency": "no requests"}}
    never = msgspec.structs.replace(window({"cpu": Series((), ())}), **known)
    with pytest.raises(NoSamplesError, match=r"^no samples for cpu of service qa; another tool has set the label$"):
        history_of(never, (), SETTINGS, END)
    ended = msgspec.structs.replace(window({"latency": Series((END - 301.0,), (0.5,))}), **known)
    with pytest.raises(MetricsError, match=r"^latency is stale: .* the limit is 300 s; no requests$"):
        history_of(ended, (), SETTINGS, END)


def test_an_outlier_is_averaged() -> None:
    times = tuple(END - STEP * k for k in range(9, -1, -1))
    spiky = window({"latency": Series(times, (0.1,) * 9 + (3.1,))})
    assert observe(history_of(spiky, (), SETTINGS, END))[3] == pytest.approx(1.1)


def test_how_long_a_retrain_takes_is_learnt_from_those_that_went_live(record: Callable[..., JobRecord]) -> None:
    def hours(*jobs: JobRecord) -> list[float]:
        return [float(h) for h in history_of(window(), jobs, SETTINGS, END).train_hours]

    usual = [SETTINGS.train_hours("aws"), SETTINGS.train_hours("azure")]
    failed = record(JobStatus.FAILED, END - 9 * STEP, END - 8 * STEP)
    assert hours() == hours(failed) == usual
    spans = ((9, 0.9), (8, 0.4), (7, 0.2), (6, 0.3))  # hours ago, hours taken
    took = [
        record(JobStatus.LIVE, END - 3600.0 * ago, END - 3600.0 * (ago - hours_taken), cloud="azure")
        for ago, hours_taken in spans
    ]
    # the median of the last three on Azure; AWS was never seen and is as much slower than configured as Azure was
    assert hours(*took) == pytest.approx([0.3 * usual[0] / usual[1], 0.3])
    fast = record(JobStatus.LIVE, END - 600.0, END - 240.0, cloud="aws")
    assert hours(*took, fast) == pytest.approx([0.1, 0.3])


def test_job_records_become_retrains_on_the_grid(record: Callable[..., JobRecord]) -> None:
    on_azure = functools.partial(record, cloud="azure")
    jobs = (
        on_azure(JobStatus.LIVE, END - 5 * STEP, END - 2 * STEP, cost_usd=0.3),
        on_azure(JobStatus.LIVE, END - 100 * STEP, END - 90 * STEP),
        on_azure(JobStatus.REJECTED, END - 8 * STEP, END - 7 * STEP),
    )
    seen = history_of(window(), jobs, SETTINGS, END)
    # live at step 7; what is scraped may be a slot old, so the first measurement of it is in step 8
    assert [(r.started, r.live, r.cloud) for r in seen.retrains] == [(-91, -80, 1), (1, None, 1), (4, 8, 1)]
    assert seen.retrains[2].cost_usd == 0.3
    assert seen.retrains[0].cost_usd == pytest.approx(0.658 * 0.25)
    assert seen.serving == (4, 8)
    assert history_of(window(), (record(JobStatus.TRAINING, END, END),), SETTINGS, END).in_flight


def at(step: float) -> float:
    """The time of a step of `window`, which has ten."""
    return END - (9 - step) * STEP


def swapped(old: Sequence[float], new: Sequence[float]) -> MetricWindow:
    """Quality 0.4 measured at the steps `old`, 0.9 at the steps `new`."""
    scraped = Series(tuple(at(k) for k in (*old, *new)), (0.4,) * len(old) + (0.9,) * len(new))
    return window({"bleu": scraped, "accuracy": scraped})


def test_a_model_is_not_credited_with_what_was_measured_of_the_one_before_it(
    record: Callable[..., JobRecord],
) -> None:
    """Trained by step 4.5, on every endpoint by 5.4: the old one's 0.4 at step 6 is a late scrape."""
    job = msgspec.structs.replace(record(JobStatus.LIVE, at(1), at(5.4)), finished_s=at(4.5))
    seen = history_of(swapped(range(7), (7, 8, 9)), (job,), SETTINGS, END)
    np.testing.assert_array_equal(seen.bleu, [0.4] * 5 + [math.nan] * 2 + [0.9] * 3)
    np.testing.assert_array_equal(seen.cpu, [0.4] * 10)
    assert seen.serving == (1, 7)
    # what a tick finds a little after its slot is scraped by the next one
    job = msgspec.structs.replace(job, updated_s=at(5.05))
    assert history_of(swapped(range(6), (6, 7, 8, 9)), (job,), SETTINGS, END).serving == (1, 6)
    # labels that are late: no line is drawn from the one to the other, and it begins where it was measured first
    seen = history_of(swapped(range(5), (8.9,)), (job,), SETTINGS, END)
    np.testing.assert_array_equal(seen.bleu, [0.4] * 5 + [math.nan] * 4 + [0.9])
    assert seen.serving == (1, 9)


def test_a_model_that_nobody_has_measured_is_held(record: Callable[..., JobRecord]) -> None:
    finished = {"finished_s": at(4.5), "model_version": "mabc"}
    job = msgspec.structs.replace(record(JobStatus.LIVE, at(1), at(5.4)), **finished)
    unmeasured = swapped(range(7), ())
    with pytest.raises(MetricsError, match=r"^mabc has served for 216 s and no labelled answer"):
        history_of(unmeasured, (job,), SETTINGS, END)
    # while endpoints swap, and while a job runs, there is nothing to decide; quality is unknown, not the last one
    accepted = msgspec.structs.replace(record(JobStatus.ACCEPTED, at(1), at(5.4)), **finished)
    running = record(JobStatus.TRAINING, at(7), at(7))
    for jobs in ((accepted,), (job, running)):
        seen = history_of(unmeasured, jobs, SETTINGS, END)
        np.testing.assert_array_equal(seen.bleu, [0.4] * 5 + [math.nan] * 5)
        assert seen.in_flight
        assert seen.serving == (0, 0)


def test_a_window_without_quality_of_any_one_model_is_held(record: Callable[..., JobRecord]) -> None:
    accepted = msgspec.structs.replace(record(JobStatus.ACCEPTED, at(-2), at(-0.5)), finished_s=at(-1))
    with pytest.raises(MetricsError, match=r"^all quality in the window was measured while endpoints swapped"):
        history_of(swapped(range(10), ()), (accepted,), SETTINGS, END)


def test_every_query_is_filled_in() -> None:
    for metric in METRICS:
        text = query(metric, "qa", 0.5)
        assert "$" not in text
        assert 'service="qa"' in text
    assert "[1000ms]" in query("latency", "qa", 0.5)


def test_the_window_ends_with_the_present_slot_and_its_start_stays_for_hours() -> None:
    settings = Settings(window_slots=120)
    starts = set()
    for slot in range(24_000, 24_240):
        start_s, end_s = window_of(settings, slot * 60.0 + 7.0)
        assert end_s == slot * 60.0
        assert 120 * 60 <= end_s - start_s < 240 * 60
        starts.add(start_s)
    assert len(starts) == 2
    assert window_of(settings, 300.0) == (0.0, 300.0)
