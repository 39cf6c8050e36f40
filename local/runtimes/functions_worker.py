"""Azure Functions' Python worker on this machine: the worker library over an unpacked package, in a process of its own.

The other side of local/runtimes/azure_worker.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from local.runtimes.memory import MemoryLimit
from local.runtimes.process import PYTHON, FunctionError, RuntimeEndedError, clean_env

WORKER: Final = Path(__file__).with_name("azure_worker.py")
CONFINED: Final = Path(__file__).with_name("confined.py")


class AzureWorker:
    """An unpacked Azure package in the worker library; `functions` is what it indexed: name -> bindings.

    Invocations run side by side, on the threads that the worker library gives them. Without `log` it writes to this
    process's output. The app writes to the temporary folder alone; what uses more than `memory_mib` is killed.
    """

    def __init__(
        self, package: Path, env: Mapping[str, str], log: Path | None = None, memory_mib: float | None = None
    ) -> None:
        self._log = str(log) if log else "the output of this process"
        with log.open("ab") if log else contextlib.nullcontext() as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(CONFINED), str(PYTHON), "-P", str(WORKER), str(package)],
                cwd=package,
                env=clean_env(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        # the command becomes the worker, so it is this very process
        self._memory = MemoryLimit("the worker", memory_mib, lambda: [self._process.pid]) if memory_mib else None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        line = self._answers.readline()
        indexed: dict[str, Any] = json.loads(line) if line else {"error": f"the worker did not start; see {self._log}"}
        if indexed["error"]:
            self.close()
            raise FunctionError(indexed["error"])
        self.functions: dict[str, list[dict[str, Any]]] = indexed["functions"]
        self._reader = threading.Thread(target=self._read, name="azure-worker", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._answers:
            answer = json.loads(line)
            with self._lock:
                self._waiting.pop(answer["number"]).set_result(answer)
        with self._lock:
            for waiting in self._waiting.values():
                waiting.set_exception(RuntimeEndedError(f"the worker ended; see {self._log}"))
            self._waiting.clear()

    def invoke(
        self,
        function: str,
        inputs: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        timeout_s: float = 300.0,
    ) -> Any:
        """Call one function; inputs and metadata are name -> [type, value], see azure_worker. Thread-safe.

        Raises:
            FunctionError: it raised.
            RuntimeEndedError: the worker ended, or did not answer in time.
        """
        number, told = next(self._numbers), Future[dict[str, Any]]()
        asked = {"number": number, "function": function, "inputs": dict(inputs), "metadata": dict(metadata or {})}
        with self._lock:
            if self._process.poll() is not None:
                raise RuntimeEndedError(f"the worker ended with {self._process.returncode}; see {self._log}")
            self._waiting[number] = told
            try:
                self._requests.write(json.dumps(asked) + "\n")
                self._requests.flush()
            except OSError as exc:
                del self._waiting[number]
                raise RuntimeEndedError(f"the worker ended; see {self._log}") from exc
        try:
            answer = told.result(timeout_s)
        except TimeoutError as exc:
            raise RuntimeEndedError(f"{function} did not answer within {timeout_s:g} s; see {self._log}") from exc
        if not answer["ok"]:
            raise FunctionError(answer["error"])
        return answer["returned"]

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def wait(self) -> int:
        """Block until the worker ends; its exit code."""
        return self._process.wait()

    def close(self) -> None:
        """End the worker."""
        if self._memory is not None:
            self._memory.close()
        self._process.kill()
        self._process.wait(timeout=10)
        if hasattr(self, "_reader"):
            self._reader.join(timeout=10)
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
