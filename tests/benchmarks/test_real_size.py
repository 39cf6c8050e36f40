"""From the gate to live on both clouds' stand-ins, with a small model: what the benchmark prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def printed(*options):
    command = [sys.executable, "-m", "benchmarks.real_size", *options, "--json"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.emulator
@pytest.mark.timeout(600)  # two stores, two containers and several functions, each a process
def test_a_small_model_goes_live_on_both_clouds_and_no_request_fails():
    found = printed("--shape", "small")
    assert found.keys() == {
        "artifact_mb",
        "function_peak_mb",
        "copy_peak_mb",
        "copy_idle_mb",
        "copy_invocations",
        "reload_s",
        "served_during_reload_failed",
    }
    assert found["artifact_mb"] > 1
    assert found["served_during_reload_failed"] == 0
    assert found["copy_invocations"] >= 1
    assert found["copy_peak_mb"] - found["copy_idle_mb"] <= 64
    assert 0 < found["function_peak_mb"] < 0.6 * 512
    assert found["reload_s"] > 0
