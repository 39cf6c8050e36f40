"""Azure's worker library on this machine: invocations side by side, errors, and the end of the process."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local.runtimes import AzureWorker, FunctionError, RuntimeEndedError

pytestmark = pytest.mark.xdist_group("local-clouds")

APP = textwrap.dedent(
    """
    import os, time
    import azure.functions as func

    app = func.FunctionApp()

    @app.queue_trigger(arg_name="message", queue_name="q", connection="c")
    def work(message: func.QueueMessage) -> None:
        text = message.get_body().decode(errors="replace")
        if text.startswith("sleep"):
            time.sleep(float(text[5:]))
        elif text == "eat":
            bytearray(b"x") * 400 * 2**20
            time.sleep(1)
        elif text != "good":
            raise ValueError(text)
    """
)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[AzureWorker]:
    (tmp_path / "function_app.py").write_text(APP)
    with AzureWorker(tmp_path, {}, tmp_path / "log") as running:
        yield running


def send(worker: AzureWorker, kind: str, value: str, timeout_s: float = 60.0) -> None:
    worker.invoke("work", {"message": [kind, value]}, {"Id": ["string", "1"]}, timeout_s)


def test_invocations_run_side_by_side(worker: AzureWorker) -> None:
    send(worker, "string", "good")
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda _: send(worker, "string", "sleep1"), range(4)))
    assert time.monotonic() - begun < 3


def test_what_the_function_raises_is_an_error_and_bytes_arrive_as_bytes(worker: AzureWorker) -> None:
    with pytest.raises(FunctionError, match="caf\N{REPLACEMENT CHARACTER}"):
        send(worker, "bytes", "Y2Fm6Q==")  # "café" in Latin-1
    send(worker, "string", "good")


def test_a_worker_that_is_slow_or_gone_is_said_so(worker: AzureWorker) -> None:
    with pytest.raises(RuntimeEndedError, match=r"did not answer within 0\.2 s"):
        send(worker, "string", "sleep2", timeout_s=0.2)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(send, worker, "string", "sleep30")
        time.sleep(0.3)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeEndedError, match="the worker ended"):
            waiting.result(20)
    worker.wait()
    with pytest.raises(RuntimeEndedError, match="the worker ended with -9"):
        send(worker, "string", "good")


def test_a_worker_that_uses_more_than_its_instance_has_is_killed(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(APP)
    with AzureWorker(tmp_path, {}, tmp_path / "log", memory_mib=300) as worker:
        send(worker, "string", "good")
        with pytest.raises(RuntimeEndedError, match="the worker ended"):
            send(worker, "string", "eat")
        assert worker.wait() == -signal.SIGKILL
