"""Trace files: what is written is read; what is wrong is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.training.simulator import trace as traces
from policy.training.simulator.trace import Trace
from shared.errors import InvalidInputError


def arrays(steps: int = 5) -> dict[str, Any]:
    matrix = np.triu(np.full((steps, steps), 0.5, np.float32))
    matrix[np.tril_indices(steps, -1)] = np.nan
    line = np.full(steps, 0.5, np.float32)
    return {
        "bleu": matrix,
        "accuracy": matrix.copy(),
        "request_rate_rps": line,
        "latency_s": line,
        "cpu": line,
        "memory": line,
        "price_usd_per_hour": np.ones((steps, 2), np.float32),
        "train_hours": np.ones(2, np.float32),
        "step_minutes": np.float32(10),
        "value_usd_per_quality_hour": np.float32(6),
        "noise_sd": np.float32(0.02),
    }


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays())
    first = traces.load(path)
    first.save(tmp_path / "b.npz")
    second = traces.load(tmp_path / "b.npz")
    assert second.sha256() == first.sha256()
    assert second.delays == (6, 6)
    assert second.noise_sd == pytest.approx(0.02)


def test_noise_defaults_to_zero(tmp_path: Path) -> None:
    fields = arrays()
    del fields["noise_sd"]
    np.savez(tmp_path / "a.npz", **fields)
    assert traces.load(tmp_path / "a.npz").noise_sd == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bleu", np.ones((4, 5), np.float32)),
        ("accuracy", np.full((5, 5), 1.5, np.float32)),
        ("cpu", np.ones(4, np.float32)),
        ("latency_s", np.full(5, -1, np.float32)),
        ("price_usd_per_hour", np.full((5, 2), np.nan, np.float32)),
        ("train_hours", np.zeros(2, np.float32)),
        ("step_minutes", np.float32(0)),
        ("value_usd_per_quality_hour", np.float32("nan")),
        ("noise_sd", np.float32(-1)),
        ("memory", np.array(["a"] * 5)),
        ("step_minutes", np.ones(3, np.float32)),
        ("bleu", None),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, field: str, value: object) -> None:
    fields = arrays()
    if value is None:
        del fields[field]
    else:
        fields[field] = value
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(InvalidInputError, match=rf"bad\.npz: field {field}"):
        traces.load(tmp_path / "bad.npz")


def test_a_missing_value_on_the_diagonal_is_refused(tmp_path: Path) -> None:
    fields = arrays()
    fields["bleu"][1, 3] = np.nan
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(InvalidInputError, match=r"field bleu is nan at \[1, 3\]"):
        traces.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_an_unreadable_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"bad\.npz"):
        traces.load(tmp_path / "bad.npz")
    with pytest.raises(InvalidInputError, match="absent"):
        traces.load(tmp_path / "absent.npz")


def test_cut_is_the_warm_up(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(8))
    warm = traces.load(tmp_path / "a.npz").cut(2)
    assert isinstance(warm, Trace)
    assert warm.steps == 2
    assert warm.price_usd_per_hour.shape == (2, 2)
    traces.validate(warm, "warm")
