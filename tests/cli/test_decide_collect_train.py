"""The commands as a user runs them: train, then decide and collect against something that speaks Prometheus."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pyarrow import parquet

from policy.catalogue import REFERENCE
from shared.promql import METRIC

PAPER = str(REFERENCE["ppo-paper"])
#: what the fake service measured: good, then bad, by how long before the end of the query
DROP_AT = 0.6
VALUES = {"cpu": 0.4, "memory": 0.5, "request_rate": 3.0, "latency": 0.08, "bleu": 0.8, "accuracy": 0.8}


def answer(dropping: bool, empty: bool, asked: Any) -> tuple[int, bytes]:
    """The one route that is asked, with a drop of quality in the last part of every window."""
    query = dict(parse_qsl(asked.body.decode()))
    start, end, step = float(query["start"]), float(query["end"]), float(query["step"])
    result = []
    for part in re.findall(rf'"{METRIC}", "([\w.]+)"', query["query"]):
        points, at, name = [], start, part.partition(".")[0]
        while name in VALUES and at <= end:
            bad = dropping and name in ("bleu", "accuracy") and at > start + DROP_AT * (end - start)
            value = VALUES[name] / 2 if bad else VALUES[name]
            points.append([at, "1" if part.endswith(".weight") else str(value)])
            at += step
        if points and not empty:
            result.append({"metric": {METRIC: part}, "values": points})
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


@pytest.fixture
def prometheus(http_server: Callable[..., Any]) -> Callable[..., Any]:
    """A context: whether quality drops, whether it knows nothing -> its address."""
    return lambda dropping=True, empty=False: http_server(functools.partial(answer, dropping, empty))


@pytest.fixture
def drifting(prometheus: Callable[..., Any]) -> Iterator[str]:
    with prometheus() as url:
        yield url


def opportune(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2])


def test_decide_sees_the_drift_and_explains_it(drifting: str) -> None:
    run = opportune("decide", "--prometheus", drifting, "--policy", PAPER, "--json")
    assert run.returncode == 0, run.stderr
    decision = json.loads(run.stdout)
    assert decision["action"] in (1, 2)
    assert decision["observation"]["accuracy"] == pytest.approx(0.4)
    # what has changed is the accuracy, and it alone moved the choice
    assert max(decision["attributions"], key=lambda name: abs(decision["attributions"][name])) == "accuracy"
    shown = opportune("decide", "--prometheus", drifting, "--policy", PAPER)
    assert "retrain" in shown.stdout
    assert "expected cost" in shown.stdout


def test_decide_holds_while_nothing_changes(prometheus: Callable[..., Any]) -> None:
    with prometheus(dropping=False) as url:
        run = opportune("decide", "--prometheus", url, "--policy", PAPER, "--json")
    assert json.loads(run.stdout)["action"] == 0


def test_decide_without_metrics_holds_and_says_why(prometheus: Callable[..., Any]) -> None:
    with prometheus(empty=True) as url:
        run = opportune("decide", "--prometheus", url, "--policy", PAPER)
    assert run.returncode == 0
    assert run.stdout.startswith("hold")
    assert "no samples" in run.stdout
    assert run.stdout.count("no samples") == 1
    assert run.stdout.splitlines()[0].count("hold") == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_decide_without_a_prometheus_says_so_once_and_fails(typed, as_json: bool) -> None:
    run = typed("decide", "--prometheus", "http://127.0.0.1:9", *(["--json"] if as_json else []))
    assert run.returncode == 1
    assert run.stderr.startswith("opportune: Prometheus at http://127.0.0.1:9 did not answer: ")
    assert run.stderr.count("\n") == run.stderr.count("hold") == 1
    if as_json:
        assert json.loads(run.stdout)["action"] == 0
    else:
        assert run.stdout == ""


def test_collect_needs_no_more_than_a_prometheus_and_a_folder(drifting: str, tmp_path: Path, typed) -> None:
    run = typed("collect", "--prometheus", drifting, "--out", str(tmp_path / "history"), "--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["vectors"] == 7 * 24 * 60 + 1
    assert Path(told["csv"]).is_file() and Path(told["parquet"]).is_file()
    assert told["missing"]["redeploys"] == told["vectors"]
    again = typed("backtest", told["csv"])
    assert again.returncode == 2
    assert "opportune backtest --prometheus URL" in again.stderr


def test_collect_writes_both_files_with_gaps_left_empty(drifting: str, tmp_path: Path) -> None:
    run = opportune(
        "collect",
        "--prometheus",
        drifting,
        "--since",
        "2026-05-01",
        "--until",
        "2026-05-01T01:00",
        "--out",
        str(tmp_path),
    )
    assert run.returncode == 0, run.stderr
    table = parquet.read_table(tmp_path / "state.parquet").to_pydict()
    assert len(table["time_s"]) == 61
    assert table["bleu"][0] == pytest.approx(0.8)
    assert table["bleu"][-1] == pytest.approx(0.4)
    assert table["redeploys"] == [None] * 61
    lines = (tmp_path / "state.csv").read_text().splitlines()
    assert len(lines) == 62
    assert lines[1].endswith(",,")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("collect", "--since", "2026-05-02", "--until", "2026-05-01"), "--since 2026-05-02"),
        (("collect", "--since", "yesterday"), "--since 'yesterday'"),
        (("decide", "--policy", "nonsense"), "nonsense"),
        (("decide", "--policy", "absent.onnx"), "absent.onnx"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    drifting: str, arguments: tuple[str, ...], told: str, typed
) -> None:
    run = typed(arguments[0], "--prometheus", drifting, *arguments[1:])
    assert run.returncode == 2
    assert told in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("observation", ["paper", "multistream"])
def test_train_writes_a_policy_that_decides(drifting: str, tmp_path: Path, observation: str) -> None:
    out = tmp_path / "mine.onnx"
    run = opportune(
        "train", "--observation", observation, "--steps", "3000", "--traces", "8", "--seed", "1", "--out", str(out)
    )
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.onnx", "mine.zip"]
    decision = json.loads(opportune("decide", "--prometheus", drifting, "--policy", str(out), "--json").stdout)
    assert sum(decision["probabilities"]) == pytest.approx(1.0)
    assert decision["policy"] == "mine"
