"""docs/results.md, its pictures and the README's numbers are what the recorded JSON says."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.__main__ import MOST_WORDS, files, stale
from benchmarks.results.bars import Bar, chart
from benchmarks.results.page import at_scale
from benchmarks.results.subjects import ROOT, SCALE, Measured, load, record, recorded
from shared.errors import InvalidInputError


def test_the_committed_documents_are_what_the_json_says() -> None:
    assert stale(files()) == []


def test_the_page_is_short() -> None:
    assert len((ROOT / "docs" / "results.md").read_text().split()) <= MOST_WORDS


def test_writing_twice_gives_the_same() -> None:
    assert files() == files()


def test_a_changed_document_is_noticed() -> None:
    made = files()
    made[ROOT / "docs" / "results.md"] += "by hand"
    assert stale(made) == ["docs/results.md is not what the JSON says; run `make results`"]


@pytest.mark.parametrize("name", recorded())
def test_every_measurement_says_how_when_and_where(name: str) -> None:
    measured = load(name)
    assert measured.command
    assert len(measured.measured) == 10
    assert "cores" in measured.machine
    assert measured.result


def test_a_measurement_is_recorded_with_its_command(tmp_path: Path) -> None:
    path = record("demo", """python -c 'print("noise"); print("{\\"saved\\": 1}")'""", tmp_path)
    kept = json.loads(path.read_text())
    assert kept["result"] == {"saved": 1}
    assert kept["command"].startswith("python -c")
    assert load("demo", tmp_path).result == {"saved": 1}


def test_a_document_of_many_lines_is_recorded_too(tmp_path: Path) -> None:
    printing = 'import json; print("noise"); print(json.dumps({"a": {"b": 1}}, indent=2))'
    record("demo", shlex.join(["python", "-c", printing]), tmp_path)
    assert load("demo", tmp_path).result == {"a": {"b": 1}}


def test_a_command_that_fails_leaves_the_last_measurement(tmp_path: Path) -> None:
    record("demo", """python -c 'print("{}")'""", tmp_path)
    before = (tmp_path / "demo.json").read_bytes()
    with pytest.raises(InvalidInputError, match="exit code 3"):
        record("demo", "python -c 'raise SystemExit(3)'", tmp_path)
    assert (tmp_path / "demo.json").read_bytes() == before
    assert sys.executable not in before.decode()


def test_what_is_shown_at_scale_is_judged_by_its_goals() -> None:
    case = {"pairs_there": 17_280_000, "seconds": 1.8, "peak_mb": 107.0}
    copied = {"copy_peak_mb": 120.0, "copy_idle_mb": 92.0}
    results: dict[str, dict[str, Any]] = {
        "releases": {"releases": 50, "failed": 1, "wrong_version": 0, "rollback_s_max": 2.1},
        "real_size": {
            "artifact_mb": 400.0,
            "function_peak_mb": 130.0,
            "reload_s": 40.0,
            "served_during_reload_failed": 0,
            **copied,
        },
        "copy": {**copied, "artifact_mb": 2000.0, "copy_peak_mb": 160.0},
        "snapshot": {"limits": {"memory_mb": 512.0, "seconds": 60.0}, "cases": {"day": case}},
    }
    words = at_scale({name: Measured(f"run {name}", "2026-12-01", "2 cores", results[name]) for name in SCALE})
    rows = {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in words.splitlines() if row.count("|") > 3}
    assert rows["requests that failed in 50 releases and rollbacks"] == "**no**"
    assert rows["copy of 2,000 MB: memory above the idle process"] == "**no**"
    assert rows["a rollback is in force, at most"] == "yes"
    assert rows["training start on 17,280,000 pairs: memory"] == "yes"
    assert "$ run copy" in words


def test_what_was_never_measured_says_how_to() -> None:
    with pytest.raises(InvalidInputError, match="record nothing"):
        load("nothing")


def test_a_bar_beyond_the_limit_is_cut_and_marked() -> None:
    drawn = chart("t", [Bar("a", 50.0, "50 %"), Bar("b <", 2300.0, "2,300 %")], limit=100.0)
    assert "2,300 % →" in drawn
    assert "50 % →" not in drawn
    assert "b &lt;" in drawn
