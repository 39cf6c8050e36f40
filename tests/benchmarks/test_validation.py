"""The validation benchmark, and what it says of the shipped policy."""

from __future__ import annotations

import pytest

from benchmarks.validation import network_of, validate
from policy.training.generators import FAMILIES, LIKE_REAL
from shared.errors import InvalidInputError


@pytest.mark.slow
def test_the_shipped_policy_thrashes_in_no_family() -> None:
    scores = validate("ppo", 100)
    assert list(scores) == [*FAMILIES, *LIKE_REAL]
    assert all(ratio >= 1.0 for ratio, _ in scores.values())
    assert max(times for _, times in scores.values()) <= 1.5


def test_what_is_no_trained_policy_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cusum is a rule"):
        network_of("cusum")
    with pytest.raises(InvalidInputError, match="absent"):
        network_of("absent.onnx")
