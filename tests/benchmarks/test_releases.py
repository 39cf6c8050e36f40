"""Releases and rollbacks under load: what the benchmark counts, and a short run of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.releases import Change, Found, _found
from benchmarks.serving.load import Answer

EXPECTED = {("v1", "q"): "one", ("v2", "q"): "two"}
CHANGES = [Change(100.0, "v2", rollback=False), Change(110.0, "v1", rollback=True)]


def answer(ended_s, version, text):
    return Answer(ended_s - 0.5, ended_s, version, "q", text)


def test_an_answer_that_is_not_of_the_version_it_names_is_counted():
    answers = [answer(99.0, "v1", "one"), answer(105.0, "v2", "one"), answer(106.0, "v3", "three")]
    assert _found(CHANGES, answers, 0, EXPECTED).wrong_version == 2


def test_a_rollback_takes_until_the_last_answer_of_the_version_taken_back():
    answers = [answer(at, "v2", "two") for at in (105.0, 110.5, 111.25)] + [answer(111.0, "v1", "one")]
    assert _found(CHANGES, answers, 3, EXPECTED) == Found(2, 7, 3, 0, 1.25, 1.25)


@pytest.mark.slow
def test_a_short_run_fails_no_request_and_mixes_no_versions():
    command = [sys.executable, "-m", "benchmarks.releases", "--count", "2", "--clients", "2", "--json"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == Found.__dataclass_fields__.keys()
    assert (found["releases"], found["failed"], found["wrong_version"]) == (2, 0, 0)
    assert found["requests"] > 10
    assert 0 < found["rollback_s_max"] < 10
