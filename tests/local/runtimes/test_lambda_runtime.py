"""Lambda's runtime on this machine: errors, timeouts and crashes as AWS reports them, and how many processes run."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local.runtimes import FunctionError, LambdaFunction, RuntimeEndedError
from local.runtimes.limits import instance_memory_mib, lambda_limits

pytestmark = pytest.mark.xdist_group("local-clouds")

HANDLERS = textwrap.dedent(
    """
    import os, time

    def work(event, context):
        if event == "raise":
            raise ValueError("no good")
        if event == "crash":
            os._exit(3)
        if event == "eat":
            return len(bytearray(b"x") * 200 * 2**20)
        if isinstance(event, dict):
            with open(event["write"], "w") as file:
                return file.write("x")
        time.sleep(event)
        return os.getpid()
    """
)


@pytest.fixture
def function(tmp_path: Path) -> Iterator[LambdaFunction]:
    (tmp_path / "tiny.py").write_text(HANDLERS)
    made = LambdaFunction(tmp_path, "tiny.work", {}, timeout_s=2, memory_mib=128, concurrency=2)
    yield made
    made.close()


def test_what_the_function_raises_is_an_error_and_it_goes_on(function: LambdaFunction) -> None:
    process = function.invoke(0)
    with pytest.raises(FunctionError, match="ValueError: no good"):
        function.invoke("raise")
    assert function.invoke(0) == process, "the same warm process answers"


def test_a_busy_function_gets_one_more_process_and_no_more_than_allowed(function: LambdaFunction) -> None:
    function.invoke(0)
    with ThreadPoolExecutor(4) as callers:
        assert len(set(callers.map(function.invoke, [0.5] * 4))) == 2


def test_a_process_that_ended_is_replaced(function: LambdaFunction) -> None:
    with pytest.raises(FunctionError):
        function.invoke("crash")
    assert function.invoke(0) > 0


def test_a_function_that_takes_too_long_is_ended(function: LambdaFunction) -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeEndedError, match=r"timed out after 2\.00 seconds"):
        function.invoke(30)
    assert time.monotonic() - begun < 20
    assert function.invoke(0) > 0


def test_a_function_that_uses_more_than_its_memory_is_killed_with_the_runtimes_words(function: LambdaFunction) -> None:
    with pytest.raises(RuntimeEndedError, match=r"Runtime\.OutOfMemory: Runtime\.ExitError.*signal: killed"):
        function.invoke("eat")
    assert function.invoke(0) > 0


def test_a_function_writes_to_its_temporary_folder_and_nowhere_else(tmp_path: Path) -> None:
    package, scratch = tmp_path / "package", tmp_path / "tmp"
    package.mkdir()
    scratch.mkdir()
    (package / "tiny.py").write_text(HANDLERS)
    made = LambdaFunction(package, "tiny.work", {"TMPDIR": str(scratch)})
    try:
        assert made.invoke({"write": str(scratch / "new")}) == 1
        for there in (package / "new", package / "tiny.py"):
            with pytest.raises(FunctionError, match="PermissionError"):
                made.invoke({"write": str(there)})
    finally:
        made.close()


def test_what_is_deployed_says_what_each_function_is_given() -> None:
    limits = lambda_limits()
    assert set(limits) >= {"schedule", "retrain", "training-events", "http"}
    assert all(128 <= one.memory_mib <= 10_240 and 1 <= one.timeout_s <= 900 for one in limits.values())
    assert 512 <= instance_memory_mib() <= 4096
