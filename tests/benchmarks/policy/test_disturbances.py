"""A disturbance changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.policy.disturbances import CHANGES, measured, trace_of
from policy.training.simulator.generators import FAMILIES
from policy.training.simulator.trace import validate

#: what happens to every model alike
COMMON = ("bad steps", "day and night", "harder at once", "harder and harder")


@pytest.mark.parametrize("kind", CHANGES)
def test_a_disturbed_trace_is_valid_and_repeatable(kind: str) -> None:
    for family in FAMILIES:
        trace = trace_of(kind, family, 1)
        validate(trace, trace.name)
        assert trace.sha256() == trace_of(kind, family, 1).sha256()


@pytest.mark.parametrize("kind", COMMON)
def test_what_happens_to_every_model_makes_none_better_than_another(kind: str) -> None:
    plain, changed = (trace_of(each, "gradual", 0).quality for each in ("none", kind))
    inside = (changed > 0.0) & (changed < 1.0)  # what was cut off is no difference
    lost = np.where(inside, plain - changed, np.nan)
    assert np.nanmax(lost) > 0.05
    assert np.nanmax(np.nanmax(lost, axis=0) - np.nanmin(lost, axis=0)) < 1e-6


def test_the_other_disturbances_do_what_they_say() -> None:
    plain = trace_of("none", "stable", 0)
    later = plain.quality - trace_of("growing data", "stable", 0).quality
    assert later[0, 0] > 0.04 > 0.02 > later[-1, -1] >= 0.0
    assert trace_of("few labels", "stable", 0).noise_sd >= 0.08 > plain.noise_sd
    assert trace_of("counted", "stable", 0).noise_sd == 0.0
    shares = trace_of("counted", "stable", 0).quality[0] * np.arange(5, 30)[:, None]
    assert (np.abs(shares - shares.round()).max(axis=1) < 1e-4).any(), "right answers of a fixed number"
    moody = trace_of("moods", "stable", 0).quality
    assert np.diff(moody[0]).std() > 2.0 * np.diff(plain.quality[0]).std()
    assert np.diff(trace_of("flicker", "stable", 0).quality[0]).std() > 2.0 * np.diff(plain.quality[0]).std()


def test_policies_are_scored_beside_the_optimum() -> None:
    found = measured("harder at once", "gradual", 2, ("ppo", "never"))
    assert set(found) == {"ppo", "never", "optimum"}
    assert all(ratio >= 1.0 - 1e-9 for policy in found for ratio, _ in found[policy])
    assert [retrains for _, retrains in found["never"]] == [0.0, 0.0]
    assert found["ppo"] != found["never"]
