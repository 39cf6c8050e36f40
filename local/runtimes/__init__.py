"""Run the packages in the clouds' own runtimes, on this machine: for the tests and for the benchmark.

    with LambdaRuntime(build / "aws", "functions.aws.schedule.handler", env, log) as function:
        answer = function.invoke({})

AWS: the Lambda runtime emulator with awslambdaric, one process per function as in the cloud. Azure: the worker library
indexes the app and calls its triggers (local/runtimes/azure_worker.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import urllib3

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".venv313" / "bin" / "python"
EMULATOR: Final = ROOT / ".tools" / "bin" / "aws-lambda-rie"
#: what a user's own account or settings would change
_FOREIGN: Final = ("AWS_", "AZURE_", "OPPORTUNE_", "PYTHON", "POWERTOOLS_", "IDENTITY_")


class FunctionError(Exception):
    """The function raised; the message is its error as Lambda reports it."""


def clean_env(env: Mapping[str, str]) -> dict[str, str]:
    """`env` over this process's environment without what belongs to the clouds."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | dict(env)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def tree_digest(folder: Path) -> str:
    """Changes when any file below the folder appears, disappears or changes."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


class LambdaRuntime:
    """One function of an unpacked AWS package. The first invoke initialises it, as a cold start does."""

    def __init__(self, package: Path, handler: str, env: Mapping[str, str], log: Path) -> None:
        self._port = free_port()
        self._log = log.open("ab")
        self._http = urllib3.PoolManager(retries=False)
        name = handler.split(".")[-2]
        self._process = subprocess.Popen(
            [
                *(str(EMULATOR), "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                *("--runtime-api-address", f"127.0.0.1:{free_port()}"),
                *(str(PYTHON), "-m", "awslambdaric", handler),
            ],
            cwd=package,
            env=clean_env(
                {
                    "AWS_LAMBDA_FUNCTION_NAME": f"opportune-{name}",
                    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                    "LAMBDA_TASK_ROOT": str(package),
                    "PYTHONPATH": str(package),
                    **env,
                }
            ),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        self.close()
        raise FunctionError(f"the Lambda runtime emulator does not answer; see {self._log.name}")

    def invoke(self, event: Any, timeout_s: float = 60.0) -> Any:
        """The function's answer.

        Raises:
            FunctionError: it raised, ended or did not answer in time.
        """
        url = f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations"
        try:
            raw = self._http.request("POST", url, body=json.dumps(event).encode(), timeout=timeout_s).data
        except urllib3.exceptions.HTTPError as exc:
            raise FunctionError(f"no answer from the function: {exc}; see {self._log.name}") from exc
        answer = json.loads(raw) if raw else None
        # The emulator reports what a handler raised with HTTP 200.
        if isinstance(answer, dict) and "errorType" in answer:
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
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        raise FunctionError("the function's process is gone")

    def close(self) -> None:
        """End the emulator and the function."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


class AzureWorker:
    """An unpacked Azure package in the worker library; `functions` is what it indexed: name -> bindings."""

    def __init__(self, package: Path, env: Mapping[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [str(PYTHON), "-P", str(ROOT / "infra" / "azure_worker.py"), str(package)],
            cwd=package,
            env=clean_env(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        told = self._read()
        if told["error"]:
            self.close()
            raise FunctionError(told["error"])
        self.functions: dict[str, list[dict[str, Any]]] = told["functions"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(timeout=10)
            raise FunctionError(f"the worker ended with {self._process.returncode}; see {self._log.name}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def invoke(self, function: str, inputs: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> Any:
        """Call one function; inputs and metadata are name -> [type, value], see local/runtimes/azure_worker.py.

        Raises:
            FunctionError: it raised.
        """
        assert self._process.stdin is not None
        asked = {"function": function, "inputs": dict(inputs), "metadata": dict(metadata or {})}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = self._read()
        if not told["ok"]:
            raise FunctionError(told["error"])
        return told["returned"]

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.wait(timeout=10)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
