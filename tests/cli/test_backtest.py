import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from policy.training.simulator.generators import generate


def opportune(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd or root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        timeout=120,
    )


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("traces") / "gradual.npz"
    generate("gradual", 1, steps=50).save(file)
    return str(file)


def test_json_goes_to_standard_output_alone(trace_file: str) -> None:
    done = opportune("backtest", trace_file, "--policy", "static", "--policy", "oracle", "--seed", "4", "--json")
    assert done.returncode == 0, done.stderr
    static, oracle = json.loads(done.stdout)["runs"]
    assert set(static) == {
        "trace",
        "policy",
        "seed",
        "decisions",
        "cost_usd",
        "oracle_cost_usd",
        "retrains",
        "mean_quality",
        "seconds_per_decision",
    }
    assert (static["trace"], static["policy"], static["seed"]) == (trace_file, "static", 4)
    assert len(static["decisions"]) == 50
    assert sum(action > 0 for action in static["decisions"]) == static["retrains"] > 0
    assert oracle["cost_usd"] == pytest.approx(static["oracle_cost_usd"])


def test_a_table_and_a_picture_otherwise(trace_file: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    done = opportune("backtest", trace_file, "--policy", "never", "--policy", "regret", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    assert "never" in done.stdout
    assert "regret" in done.stdout
    drawn = picture.read_text()
    ElementTree.fromstring(drawn)
    assert "oracle" in drawn  # always there to compare with


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backtest"], "no trace: give TRACE.npz files"),
        (["backtest", "nowhere.npz", "--policy", "never"], "nowhere.npz: not a readable .npz trace"),
        (["backtest", "x.npz", "--prometheus", "http://localhost:1"], "give trace files or --prometheus, not both"),
        (["backtest", "--prometheus", "http://localhost:1"], "--prometheus needs --since"),
        (["backtest", "--prometheus", "http://localhost:1", "--since", "yesterday"], "not a time; write"),
        (["backtest", "x.npz", "--policy", "never", "--since", "2026-01-01"], "--since and --until belong to"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], says: str) -> None:
    done = opportune(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_policy_is_named_with_the_known_ones(trace_file: str) -> None:
    done = opportune("backtest", trace_file, "--policy", "ppq")
    assert done.returncode == 2
    assert "--policy ppq: no such policy; choose from" in done.stderr
    assert "cara-ct" in done.stderr
