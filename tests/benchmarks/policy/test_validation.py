"""The validation benchmark, and what it says of the shipped policy."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.policy.validation import Score, Scores, network_of, paired, show, validate
from policy.training.simulator.generators import APART, FAMILIES
from shared.errors import InvalidInputError


@pytest.fixture(scope="module")
def scores() -> Scores:
    return validate("ppo", 100)


@pytest.mark.slow
def test_the_shipped_policy_thrashes_in_no_family(scores: Scores) -> None:
    assert list(scores) == [*FAMILIES, *APART]
    assert all(len(score.ratios) == 100 and score.ratios.min() >= 1.0 - 1e-6 for score in scores.values())
    assert max(score.times for score in scores.values()) <= 1.5


@pytest.mark.slow
def test_the_shipped_policy_decides_on_what_a_live_service_measures(scores: Scores) -> None:
    """A delay of some steps costs everybody; networks that never met it lost four to five points, not two."""
    live = validate("ppo", 100, window=8)
    alone, delayed = (np.mean([each[family].ratios for family in FAMILIES]) for each in (scores, live))
    assert 0.0 < delayed - alone < 0.03


def test_policies_are_compared_with_the_first_on_the_same_traces(capsys: pytest.CaptureFixture[str]) -> None:
    some = {family: Score(np.array([1.1, 1.3]), 1.0) for family in (*FAMILIES, *APART)}
    dearer = {**some, "stable": Score(np.array([1.2, 1.6]), 2.0)}  # by .1 and .3: .2 with a standard error of .0707
    assert paired(dearer, some, ["stable"]) == pytest.approx((0.2, 0.1 / np.sqrt(2)))
    assert paired(dearer, some, FAMILIES) == pytest.approx((0.02, 0.01 / np.sqrt(2)))
    show({"ppo": some, "other": dearer})
    table, comparison = capsys.readouterr().out.split("\n\n")
    assert "| other | 1.2200 |" in table and "1.400 (2.00×)" in table
    assert comparison.startswith("| against ppo | ten families |")
    assert comparison.splitlines()[-1].startswith("| other | +0.0200 ± 0.0071 | +0.0250 ± 0.0088 | +0.2000 ± 0.0707 |")


def test_what_is_no_trained_policy_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cusum is a rule"):
        network_of("cusum")
    with pytest.raises(InvalidInputError, match="absent"):
        network_of("absent.onnx")
