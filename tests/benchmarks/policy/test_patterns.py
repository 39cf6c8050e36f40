"""The plain patterns are what they say, and the shipped policy copes with them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.policy.patterns import CASES, FRESH, PATTERNS, STAIR, Case, ratios, trace_of
from policy.training.simulator.trace import validate


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_what_it_says(pattern: str) -> None:
    trace = trace_of(Case(pattern, 0.01, 4, 0.0, 1.5))
    validate(trace, trace.name)
    first = trace.quality[0]
    assert trace.delays == (4, 4)
    assert trace.job_usd == pytest.approx(1.5 * trace.value_usd_per_quality_hour / 60.0)
    assert first[0] == trace.quality[60, 60] == pytest.approx(FRESH)
    by_twenty = {"line": 0.2, "levelling": 0.5 * (1.0 - np.exp(-0.4)), "square": 0.1, "stairs": 0.0}[pattern]
    assert first[0] - first[20] == pytest.approx(by_twenty, abs=1e-6)
    assert first[STAIR - 1] - first[STAIR] == pytest.approx(0.25 if pattern == "stairs" else 0.0, abs=0.02)
    assert (np.diff(first) <= 1e-6).all()


@pytest.mark.slow
def test_the_shipped_policy_copes_with_them() -> None:
    """A network that was only trained on worlds where a loss levels off never retrained in some of these, while quality
    went to nothing: 1.21 on average, the tuned rule 1.18.
    """
    cases = [case for case in CASES if case.noise_sd]
    ours, rule, nothing = np.array([ratios(case, ("ppo", "regret", "never")) for case in cases]).T
    assert ours.min() >= 1.0 - 1e-9
    assert ours.mean() < rule.mean() - 0.03 < nothing.mean()
    assert ours.max() < 1.4  # PPO alone has one of 1.5 to 2.2: it holds to the end where it never tried a retrain
