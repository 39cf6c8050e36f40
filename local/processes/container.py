"""Runs a container's command as a process, with what its image holds, the way both clouds' training services do."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

import psutil

from local.processes.reaper import MARK
from local.processes.supervisor import TOOLS
from local.runtimes.process import clean_env

ROOT: Final = Path(__file__).parents[2]
#: both services give a container this long between SIGTERM and SIGKILL
STOP_GRACE_S: Final = 120.0
# In a cloud, training has a machine of its own. Here it must not take the processor from the serving processes.
NICENESS: Final = 10


class Ended(Enum):
    """Why the process is over."""

    BY_ITSELF = "by itself"
    STOPPED = "stopped"
    TIMEOUT = "timeout"


class ContainerProcess:
    """One running container command. `stop()` may be called from any thread; `wait()` by the one that runs it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self._stop = threading.Event()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                list(command),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(self._process.pid).nice(NICENESS)

    def stop(self) -> None:
        """Ask the process to end (SIGTERM, then SIGKILL after the grace)."""
        self._stop.set()

    def kill(self) -> None:
        """End the process now."""
        self._kill(signal.SIGKILL)

    def wait(self, max_runtime_s: float, grace_s: float = STOP_GRACE_S) -> tuple[Ended, int]:
        """Block until the process is over; why, and its exit code."""
        deadline = time.monotonic() + max_runtime_s
        while self._process.poll() is None:
            if self._stop.wait(0.05):
                return Ended.STOPPED, self._end(grace_s)
            if time.monotonic() > deadline:
                return Ended.TIMEOUT, self._end(grace_s)
        self._kill(signal.SIGKILL)  # what the command left behind ends with its container
        return Ended.BY_ITSELF, self._process.returncode

    def _end(self, grace_s: float) -> int:
        self._kill(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        # The leader may be a shell that ends at once, while the training it started writes its checkpoint.
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._kill(signal.SIGKILL)
        return self._process.wait()

    def _alive(self) -> bool:
        """Whether anything of the process group lives."""
        self._process.poll()  # takes the leader's exit code, so that it does not count as a zombie
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def container_log(name: str, otherwise: Path) -> Path:
    """Where a container's output goes: OPPORTUNE_LOCAL_CONTAINER_LOGS, where it outlives the job's folder."""
    folder = Path(os.environ.get("OPPORTUNE_LOCAL_CONTAINER_LOGS") or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def image_command(kind: str) -> list[str]:
    """What the image runs for `train` or `serve`, or OPPORTUNE_LOCAL_TRAIN_COMMAND and ..._SERVE_COMMAND."""
    override = os.environ.get(f"OPPORTUNE_LOCAL_{kind.upper()}_COMMAND")
    return shlex.split(override) if override else [sys.executable, "-m", "training_containers", kind]


def image_env() -> dict[str, str]:
    """The environment inside the image: this machine's, with `python` being this interpreter, and no setting of ours.

    What a container is to know, the call that starts it has to say.
    """
    path = (str(Path(sys.executable).parent), str(TOOLS), os.environ.get("PATH", ""))
    kept = {MARK: os.environ[MARK]} if MARK in os.environ else {}  # by which the supervisor finds what is left
    return clean_env(
        {"PATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", **kept}
    )
