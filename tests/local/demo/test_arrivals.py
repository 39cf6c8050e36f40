"""Arrival times of a CSV: what is read, how it is fitted, what is refused."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from local.demo.arrivals import ArrivalTrace, read_arrivals
from shared.errors import InvalidInputError


def test_iso_stamps_with_seven_digits_and_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "TIMESTAMP,Tokens\n2023-11-16 18:15:46.6805900,374\n2023-11-16 18:15:50.9951690,396\n\n"
        "2023-11-16 18:16:46.6805900,1\n"
    )
    trace = read_arrivals(path)
    assert trace.times_s == pytest.approx([0.0, 4.314579, 60.0], abs=1e-5)


def test_xz_and_plain_seconds_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.xz"
    path.write_bytes(lzma.compress(b"7.5\n5\n6\n"))
    assert read_arrivals(path).times_s.tolist() == [0.0, 1.0, 2.5]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 arrivals"),
        (b"time\n", "0 arrivals"),
        (b"3\n3\n", "different times"),
        (b"t\n1\nnan\n", "line 3"),
        (b"t\n1\nyesterday\n", "line 3: 'yesterday'"),
        (b"\xff\xfe\x00", "not a CSV"),
    ],
)
def test_bad_files_are_refused_by_name_and_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        read_arrivals(path)


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        read_arrivals(tmp_path / "no.csv")
    broken = tmp_path / "a.csv.xz"
    broken.write_bytes(lzma.compress(b"1\n2\n" * 1000)[:-20])
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_arrivals(broken)


def test_fitting_stretches_thins_and_keeps_bursts() -> None:
    burst = np.concatenate([np.linspace(0, 1, 500), np.linspace(1, 1000, 500)])
    trace = ArrivalTrace("t", burst)
    times, note = trace.fitted(np.random.default_rng(1), length_s=2000, rate_per_s=0.1)
    assert 120 < len(times) < 290  # 200 expected
    assert (times < 2.0).mean() == pytest.approx(0.5, abs=0.15)  # half of them still in the burst
    assert "stretched x2.00" in note and "thinned to 20" in note


def test_a_long_trace_is_cut_not_squeezed() -> None:
    trace = ArrivalTrace("t", np.arange(1000.0))
    times, note = trace.fitted(np.random.default_rng(1), length_s=120, rate_per_s=10)
    assert times.tolist() == list(range(120))
    assert "cut to 2 min" in note and "none dropped" in note
