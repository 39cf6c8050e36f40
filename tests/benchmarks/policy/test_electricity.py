"""The matrices of the electricity stream are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.policy.electricity import DATA, MODELS, STEPS, matrix, stream, traces
from policy.training.simulator.trace import validate
from shared.errors import InvalidInputError


def world(half_hours: int, turns_at: int) -> tuple[np.ndarray, np.ndarray]:
    """A price that is high where the first number is, from `turns_at` on where it is not."""
    x = np.random.default_rng(0).random((half_hours, 3))
    return x, (x[:, 0] > 0.5) ^ (np.arange(half_hours) >= turns_at)


def test_a_model_knows_its_two_weeks_and_is_scored_on_what_comes_after_them() -> None:
    turns_at = DATA + 10 * 48  # when step 10 begins
    quality = matrix(*world(DATA + 30 * 48, turns_at), 48, MODELS["logistic"])
    assert quality.shape == (30, 30)
    assert np.isnan(quality[np.tril_indices(30, -1)]).all()
    assert quality[0, :10].min() > 0.8
    assert quality[:11, 10].max() < 0.4, "no model has seen a half-hour of the step it is first scored on"
    assert quality[25, 25:].min() > 0.8
    assert quality[0, 25:].max() < 0.2


def test_every_stretch_is_a_valid_trace_and_shares_no_scored_half_hour_with_another() -> None:
    x, high = world(DATA + 2 * STEPS * 24 + 100, 4000)
    found = list(traces(x, high, ["tree"]))
    assert [trace.name for trace in found] == [f"electricity-{n}-tree" for n in ("24-00", "24-01", "48-00")]
    for trace in found:
        validate(trace, trace.name)
        assert trace.steps == STEPS
        assert trace.delays == (1, 1)
    assert not np.array_equal(found[0].quality[0], found[1].quality[0])


@pytest.mark.parametrize(
    ("text", "told"),
    [("a,class\n1,0\n", None), ("a,b\n1,0\n", "'class'"), ("a,class\nx,1\n", "not a readable"), ("", "not a readable")],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str | None) -> None:
    file = tmp_path / "stream.csv"
    file.write_text(text)
    if told is None:
        x, high = stream(file)
        assert (x.shape, high.tolist()) == ((1, 1), [False])
    else:
        with pytest.raises(InvalidInputError, match=told):
            stream(file)
