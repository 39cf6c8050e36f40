"""Lambda's runtime on this machine: errors, timeouts and crashes as AWS reports them, and how many processes run."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local.runtimes import FunctionError, LambdaFunction, RuntimeEndedError

pytestmark = pytest.mark.xdist_group("local-clouds")

HANDLERS = textwrap.dedent(
    """
    import os, time

    def work(event, context):
        if event == "raise":
            raise ValueError("no good")
        if event == "crash":
            os._exit(3)
        time.sleep(event)
        return os.getpid()
    """
)


@pytest.fixture
def function(tmp_path: Path) -> Iterator[LambdaFunction]:
    (tmp_path / "tiny.py").write_text(HANDLERS)
    made = LambdaFunction(tmp_path, "tiny.work", {}, timeout_s=2, concurrency=2)
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
