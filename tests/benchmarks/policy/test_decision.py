"""What the decision table is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.policy.decision import EVERY, REAL, REAL_RATIOS, jobs_of, main, trace_of
from policy.training.baselines.tuning import ratio_of
from policy.training.simulator.generators import generate
from shared.errors import InvalidInputError


def test_matrices_of_ones_own_stand_in_for_the_shipped_ones(tmp_path: Path) -> None:
    for name in ("b", "a"):
        generate("turnover", 1).save(tmp_path / f"{name}.npz")
    jobs = jobs_of(1, EVERY, tmp_path)
    assert [family for family, _, _ in jobs[: len(EVERY)]] == list(EVERY)
    measured = [(Path(file).name, index) for _, file, index in jobs[len(EVERY) :]]
    assert measured == [(name, index) for name in ("a.npz", "b.npz") for index in range(len(REAL_RATIOS))]
    for job in jobs[len(EVERY) :]:
        assert ratio_of(trace_of(job)) == pytest.approx(REAL_RATIOS[job[2]], rel=1e-5)


def test_the_shipped_matrices_are_measured_unless_families_are_named() -> None:
    shipped = {Path(file).name for family, file, _ in jobs_of(0, EVERY) if family == "real"}
    assert shipped == {file.name for file in REAL.glob("*.npz")}
    assert [family for family, _, _ in jobs_of(2, ["sudden"])] == ["sudden", "sudden"]


def test_families_and_matrices_of_ones_own_are_not_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["decision", "--family", "sudden", "--matrices", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "some families alone go without matrices" in capsys.readouterr().err


def test_a_folder_without_matrices_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no \.npz there"):
        jobs_of(0, EVERY, tmp_path)
