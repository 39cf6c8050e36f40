"""The validation benchmark, and what it says of the shipped policy."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.validation import Scores, network_of, validate
from policy.training.generators import APART, FAMILIES
from shared.errors import InvalidInputError


@pytest.fixture(scope="module")
def scores() -> Scores:
    return validate("ppo", 100)


@pytest.mark.slow
def test_the_shipped_policy_thrashes_in_no_family(scores: Scores) -> None:
    assert list(scores) == [*FAMILIES, *APART]
    assert all(ratio >= 1.0 for ratio, _ in scores.values())
    assert max(times for _, times in scores.values()) <= 1.5


@pytest.mark.slow
def test_the_shipped_policy_decides_on_what_a_live_service_measures(scores: Scores) -> None:
    """A delay of some steps costs everybody; networks that never met it lost four to five points, not two."""
    live = validate("ppo", 100, window=8)
    alone, delayed = (np.mean([each[family][0] for family in FAMILIES]) for each in (scores, live))
    assert 0.0 < delayed - alone < 0.03


def test_what_is_no_trained_policy_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cusum is a rule"):
        network_of("cusum")
    with pytest.raises(InvalidInputError, match="absent"):
        network_of("absent.onnx")
