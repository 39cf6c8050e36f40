"""AWS Lambda's runtime on this machine: the runtime interface emulator (aws-lambda-rie) with awslambdaric."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import urllib3

from local.processes.supervisor import free_port
from local.runtimes.memory import MemoryLimit, peak_memory_mib
from local.runtimes.process import EMULATOR, PYTHON, FunctionError, RuntimeEndedError, clean_env

CONFINED: Final = Path(__file__).with_name("confined.py")
START_S: Final = 15.0
#: how much longer than the function's own timeout its answer is waited for: the emulator ends it and says so
PATIENCE_S: Final = 5.0


class LambdaRuntime:
    """One execution environment of one function of an unpacked AWS package: one event at a time.

    The first invoke initialises the function, as a cold start does. Without `log` it writes to this process's output.
    The function writes to the temporary folder alone, and is killed when it uses more than `memory_mib`.
    """

    def __init__(
        self,
        package: Path,
        handler: str,
        env: Mapping[str, str],
        log: Path | None = None,
        timeout_s: float = 60.0,
        memory_mib: float = 512.0,
    ) -> None:
        self._timeout_s = timeout_s
        self._port = free_port()
        self._log = str(log) if log else "the output of this process"
        self._http = urllib3.PoolManager(retries=False)
        name = handler.split(".")[-2].replace("_", "-")
        with log.open("ab") if log else contextlib.nullcontext() as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", str(CONFINED)),
                    *(str(EMULATOR), "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                    *("--runtime-api-address", f"127.0.0.1:{free_port()}"),
                    *(str(PYTHON), "-m", "awslambdaric", handler),
                ],
                cwd=package,
                env=clean_env(
                    {
                        "AWS_LAMBDA_FUNCTION_NAME": f"opportune-{name}",
                        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(round(memory_mib)),
                        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(round(timeout_s)),
                        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                        "LAMBDA_TASK_ROOT": str(package),
                        "PYTHONPATH": str(package),
                        **env,
                    }
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._memory = MemoryLimit(handler, memory_mib, lambda: _children(self._process.pid))
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        self.close()
        raise RuntimeEndedError(f"the Lambda runtime emulator does not answer; see {self._log}")

    def invoke(self, event: Any) -> Any:
        """The function's answer.

        Raises:
            FunctionError: it raised.
            RuntimeEndedError: it ended, or did not answer in time.
        """
        url = f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations"
        wait_s = self._timeout_s + PATIENCE_S
        try:
            raw = self._http.request("POST", url, body=json.dumps(event).encode(), timeout=wait_s).data
        except urllib3.exceptions.HTTPError as exc:
            raise RuntimeEndedError(f"no answer from the function: {exc}; see {self._log}") from exc
        try:
            answer = json.loads(raw) if raw else None
        except ValueError as exc:  # "Task timed out after 60.00 seconds"
            raise RuntimeEndedError(f"{raw[:300].decode(errors='replace')}; see {self._log}") from exc
        # The emulator reports what a handler raised with HTTP 200.
        if isinstance(answer, dict) and "errorType" in answer:
            if str(answer["errorType"]).startswith("Runtime."):
                killed = "Runtime.OutOfMemory: " if self._memory.exceeded else ""
                raise RuntimeEndedError(f"{killed}{answer['errorType']}: {answer.get('errorMessage')}; see {self._log}")
            raise FunctionError(f"{answer['errorType']}: {answer.get('errorMessage')}")
        return answer

    def processor_ms(self) -> float:
        """Processor time of the Python process so far, all its threads, in milliseconds."""
        (pid, *_) = _children(self._process.pid)
        threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6

    def peak_memory_mb(self) -> float:
        """Peak resident memory of the Python process so far, in megabytes (10^6 bytes)."""
        for pid in _children(self._process.pid):
            if (peak_mib := peak_memory_mib(pid)) is not None:
                return peak_mib * 2**20 / 1e6
        raise RuntimeEndedError("the function's process is gone")

    def close(self) -> None:
        """End the emulator and the function."""
        self._memory.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self._http.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class LambdaFunction:
    """One Lambda function with up to `concurrency` execution environments, started when all others are busy.

    One is started at a time: on one machine, cold starts side by side only slow each other and everything else down.
    An event that finds no environment waits. An environment whose process ended is replaced when it is needed.
    """

    def __init__(
        self,
        package: Path,
        handler: str,
        env: Mapping[str, str],
        *,
        timeout_s: float = 60.0,
        memory_mib: float = 512.0,
        concurrency: int = 1,
    ) -> None:
        self.name = handler
        self._package = package
        self._env = dict(env)
        self._timeout_s, self._memory_mib = timeout_s, memory_mib
        self._concurrency = concurrency
        self._idle: list[LambdaRuntime] = []  # the last one used is the first one taken
        self._count = 0  # idle, busy or starting
        self._starting = False  # until its first answer, which waits for the initialisation
        self._changed = threading.Condition()

    def invoke(self, event: Any) -> Any:
        """The function's answer. Thread-safe.

        Raises:
            FunctionError: it raised, ended or did not answer in time.
        """
        runtime = self._take()
        cold = runtime is None
        try:
            if runtime is None:
                runtime = LambdaRuntime(
                    self._package, self.name, self._env, timeout_s=self._timeout_s, memory_mib=self._memory_mib
                )
            return runtime.invoke(event)
        except RuntimeEndedError:
            if runtime is not None:
                runtime.close()
            runtime = None
            raise
        finally:
            self._put(runtime, cold)

    def _take(self) -> LambdaRuntime | None:
        """An idle environment; None when the caller may start one."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or (not self._starting and self._count < self._concurrency))
            if self._idle:
                return self._idle.pop()
            self._starting = True
            self._count += 1
            return None

    def _put(self, runtime: LambdaRuntime | None, cold: bool) -> None:
        with self._changed:
            self._starting = self._starting and not cold
            if runtime is None:
                self._count -= 1
            else:
                self._idle.append(runtime)
            self._changed.notify_all()

    def close(self) -> None:
        """End the idle environments."""
        with self._changed:
            while self._idle:
                self._idle.pop().close()


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/children"))
        return [int(child) for thread in threads for child in thread.read_text().split()]
    except OSError:  # it ends just now
        return []
