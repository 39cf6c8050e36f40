import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
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
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], says: str, typed) -> None:
    done = typed(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_picture_is_drawn_where_it_was_asked_for(trace_file: str, tmp_path: Path, typed, as_json: bool) -> None:
    picture = tmp_path / "mine.svg"
    arguments = ["--policy", "never", "--picture", str(picture), *(["--json"] if as_json else [])]
    done = typed("backtest", trace_file, *arguments)
    assert done.returncode == 0, done.stderr
    assert picture.exists()
    assert f"picture: {picture}\n" in (done.stderr if as_json else done.stdout)
    assert not as_json or json.loads(done.stdout)["runs"]


@pytest.mark.parametrize("where", ["nowhere/picture.svg", "file/picture.svg"])
@pytest.mark.parametrize("source", [["x.npz"], ["--prometheus", "http://127.0.0.1:9", "--since", "7d"]])
def test_a_picture_that_cannot_be_written_is_found_before_the_run(
    where: str, source: list[str], tmp_path: Path, typed
) -> None:
    (tmp_path / "file").write_text("")
    picture = tmp_path / where
    done = typed("backtest", *source, "--policy", "never", "--picture", str(picture))
    assert done.returncode == 2
    assert done.stderr.startswith(f"opportune: --picture {picture}: no such folder")


FOREIGN = {
    "README.md": (b"# A project\n", "README.md: not a drift trace; what is read here is an .npz that"),
    "state.csv": (b"time_s,cpu\n1.0,0.5\n", "state.csv: a table of metrics, not a drift trace"),
    "mine.txt": (b"time_s,cpu\n1.0,0.5\n", "mine.txt: a table of metrics, not a drift trace"),
    "state.parquet": (b"PAR1xyz", "opportune backtest --prometheus URL --since 7d"),
    "one.npz": (b"\x93NUMPY\x01\x00", "one.npz: holds one array, not a drift trace"),
    "cut.npz": (b"PK\x03\x04cut off", "cut.npz: not a drift trace"),
    "empty.npz": (b"", "empty.npz: not a drift trace"),
}


@pytest.mark.parametrize("command", [["backtest"], ["trace", "show"]], ids=" ".join)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_named_for_what_it_is(command: list[str], name: str, tmp_path: Path, typed) -> None:
    content, says = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    done = typed(*command, str(tmp_path / name))
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "pickle" not in done.stderr


def test_nobody_is_advised_to_unpickle(tmp_path: Path, typed) -> None:
    np.savez(tmp_path / "objects.npz", bleu=np.array([{}], dtype=object))
    done = typed("backtest", str(tmp_path / "objects.npz"), "--policy", "never")
    assert done.returncode == 2
    assert "objects.npz: not a readable .npz trace: it holds something else than arrays of numbers" in done.stderr
    assert "pickle" not in done.stderr


@pytest.mark.parametrize("command", ["backtest", "decide", "demo"])
def test_the_shipped_policy_leads_the_list_of_those_there_are(command: str, typed) -> None:
    done = typed(command, "--policy", "ppq", *(["nowhere.npz"] if command == "backtest" else []))
    assert done.returncode == 2
    assert "--policy ppq: no such policy; choose from ppo, " in done.stderr
    assert ", static, " in done.stderr
    assert (", oracle, or give" in done.stderr) is (command == "backtest")
    assert ("amuse" in done.stderr) is (command == "backtest")
    assert done.stderr.count("\n") == 1


def test_an_unknown_policy_is_named_with_the_known_ones(trace_file: str) -> None:
    done = opportune("backtest", trace_file, "--policy", "ppq")
    assert done.returncode == 2
    assert "--policy ppq: no such policy; choose from" in done.stderr
    assert "cara-ct" in done.stderr
