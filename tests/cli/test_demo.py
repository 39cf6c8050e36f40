"""`opportune demo` refuses wrong input with one clear line and exit code 2, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from cli.demo import Minutes


@pytest.fixture
def refused(typed) -> Callable[..., str]:
    """A function: wrong arguments -> the one line that is said."""

    def run(*arguments: str) -> str:
        done = typed("demo", *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("opportune: ")
        return str(line)

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenario", "chaos"], "'chaos' is not one of 'steady', 'spike', 'drift'"),
        (["--speed", "0"], "--speed"),
        (["--every", "soon"], "'soon' is not a duration"),
        (["--compare", "nothing"], "--compare"),
        (["--sed", "1"], "No such option"),
        (["--policy", "oracel"], "--policy oracel: no such policy; choose from ppo, always,"),
        (["--policy", "missing.onnx"], "missing.onnx"),
        (["--questions", "missing.jsonl"], "missing.jsonl"),
        (["--arrivals", "missing.csv"], "missing.csv"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], said: str, refused, tmp_path: Path) -> None:
    assert said in refused(*arguments, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_parse_name_the_line(refused, tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "a", "answers": ["b"]}\n{"question": 3}\n')
    assert "line 2" in refused("--questions", str(questions))
    questions.write_text("")
    assert "holds no question" in refused("--questions", str(questions))
    arrivals = tmp_path / "a.csv"
    arrivals.write_text("TIMESTAMP\n2023-01-01 00:00:00\nlater\n")
    assert "line 3" in refused("--arrivals", str(arrivals))


def test_an_output_folder_that_cannot_be_written(refused, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    assert str(taken) in refused("--out", str(taken / "below"))


@pytest.mark.parametrize(("text", "minutes"), [("15m", 15), ("900s", 15), ("1.5h", 90), ("20", 20), ("5 min", 5)])
def test_durations(text: str, minutes: float) -> None:
    assert Minutes().convert(text, None, None) == minutes


@pytest.mark.parametrize("text", ["", "0m", "-5m", "5d", "m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        Minutes().convert(text, None, None)
