import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policy.training.simulator.trace import load

ROOT = Path(__file__).parents[2]


def opportune(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "trace", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        timeout=280,
    )


@pytest.mark.slow
def test_a_real_matrix_is_measured_with_the_training_containers_own_code(tmp_path: Path) -> None:
    colours = ("red", "green", "blue", "white")
    stream = [{"question": f"what is item {n}", "answer": colours[n % 4], "date": n} for n in range(24)]
    questions = tmp_path / "stream.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in stream))
    out = tmp_path / "real.npz"
    sizes = ["--steps", "2", "--initial", "12", "--per-step", "12", "--train-pairs", "24", "--eval-pairs", "12"]
    done = opportune("build", "--questions", str(questions), "--out", str(out), *sizes, "--epochs", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert "2/2 models" in done.stderr
    assert json.loads(done.stdout) == {"trace": str(out), "steps": 2}
    trace = load(out)
    assert trace.steps == 2
    assert np.isfinite(trace.quality[0]).all()
    again = opportune("build", "--questions", str(questions), "--out", str(out), *sizes, "--epochs", "4")
    assert "models" not in again.stderr  # nothing was left to do


def test_what_is_in_a_trace_is_shown(tmp_path: Path, typed) -> None:
    from policy.training.simulator.generators import generate

    generate("gradual", 1, steps=30).save(tmp_path / "one.npz")
    done = typed("trace", "show", str(tmp_path / "one.npz"))
    assert done.returncode == 0, done.stderr
    assert "one" in done.stdout
    (told,) = json.loads(typed("trace", "show", str(tmp_path / "one.npz"), "--json").stdout)["traces"]
    assert (told["trace"], told["steps"]) == ("one", 30)
    assert 0 < told["oracle_cost_usd"] <= told["never_cost_usd"]


def test_an_unreadable_stream_is_one_line(tmp_path: Path, typed) -> None:
    done = typed("trace", "build", "--questions", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "x.npz"))
    assert done.returncode == 2
    assert "none.jsonl" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
