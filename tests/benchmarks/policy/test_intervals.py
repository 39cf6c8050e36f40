import numpy as np
import pytest

from benchmarks.policy.intervals import bootstrap, interquartile_mean


def test_the_interquartile_mean_ignores_outliers() -> None:
    assert interquartile_mean(np.array([1.0, 2.0, 3.0, 1000.0])) == pytest.approx(2.5)


def test_the_interval_holds_the_mean_and_shrinks_with_more_traces() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(1.1, 0.1, 40), rng.normal(1.1, 0.1, 640)
    (low, high), (low_many, high_many) = (
        bootstrap(values, ["a", "b"] * (len(values) // 2))["mean"] for values in (few, many)
    )
    assert low < few.mean() < high
    assert high_many - low_many < (high - low) / 2


def test_resampling_stays_within_the_strata() -> None:
    values = np.array([0.0] * 20 + [1.0] * 20)
    assert bootstrap(values, ["a"] * 20 + ["b"] * 20)["mean"] == [0.5, 0.5]
