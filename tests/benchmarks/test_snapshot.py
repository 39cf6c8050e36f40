"""The benchmark of a training start: every case in a process of its own, one JSON object."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_prints_what_each_case_took_and_the_limits():
    command = [sys.executable, "-m", "benchmarks.snapshot", "--case", "day", "--case", "large", "--latency-ms", "1"]
    done = subprocess.run([*command, "--json"], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["limits"] == {"memory_mb": 512.0, "seconds": 60.0}
    assert found["cases"]["day"]["pairs_there"] == 17_280_000
    for case in found["cases"].values():
        assert case["idle_mb"] < case["peak_mb"] < found["limits"]["memory_mb"] / 2
        assert case["seconds"] < found["limits"]["seconds"] / 2
        assert case["requests"] < 500
