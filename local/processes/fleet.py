"""The serving containers behind one variant or deployment, as a managed endpoint keeps them: watched and replaced.

A container knows what its image holds, what the API call said, what the service itself sets, and nothing else. It
serves on a port that its service's inference route alone is told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from local.processes.container import ROOT, image_env
from local.processes.supervisor import free_port

log = logging.getLogger(__name__)

#: a health check that takes longer has failed; both services ask for an answer within two seconds
PING_S: Final = 2.0
#: between two looks at a container
LOOK_S: Final = 0.2
#: a container that serves is asked so often, and taken out of the traffic after so many failures in a row
PING_EVERY_S: Final = 2.0
UNHEALTHY_AFTER: Final = 3
#: pauses before a container that ended is started again
_BACKOFF_S: Final = (0.2, 5.0)
#: between SIGTERM and SIGKILL
GRACE_S: Final = 10.0
#: a proxy for the outside world does not lead back to this machine
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Container:
    """What every instance runs."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]  # beside the image's own
    port_variables: Sequence[str]  # in which the service says where to listen
    health_path: str
    work: Path  # temporary folders of the instances
    log: Path


class _Instance:
    """One running container, and its replacements."""

    def __init__(self, container: Container, number: int) -> None:
        self._container = container
        self._folder = container.work / f"{container.name}-{number}"
        self._pause_s = _BACKOFF_S[0]
        self._again_at = self._pinged_at = 0.0
        self._failures = 0
        self.healthy = False
        self.restarts = 0
        self._start()

    def _start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.port = free_port()
        env = {
            **image_env(),
            # the machine that an instance is: its disk, a core, and no address but its service's
            "TMPDIR": str(self._folder),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "OPPORTUNE_SERVE_HOST": "127.0.0.1",
            **self._container.env,
            **dict.fromkeys(self._container.port_variables, str(self.port)),
        }
        with self._container.log.open("ab") as out:
            self._process = subprocess.Popen(
                list(self._container.command),
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def look(self) -> bool:
        """Start it again when it ended, ask for its health when it is time; True when its health or port changed."""
        before = (self.healthy, self.port)
        now = time.monotonic()
        if (code := self._process.poll()) is not None:
            if self.healthy or not self._again_at:
                log.warning("container %s ended with %d", self._container.name, code)
                self.healthy, self._again_at = False, now + self._pause_s
                self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])
            elif now >= self._again_at:
                self._kill(signal.SIGKILL)  # what it left behind
                self._again_at, self._failures = 0.0, 0
                self.restarts += 1
                self._start()
        elif not self.healthy or now - self._pinged_at >= PING_EVERY_S:
            self._pinged_at = now
            if self._ping():
                self.healthy, self._failures = True, 0
            else:
                self._failures += 1
                self.healthy = self.healthy and self._failures < UNHEALTHY_AFTER
        return (self.healthy, self.port) != before

    def _ping(self) -> bool:
        url = f"http://127.0.0.1:{self.port}{self._container.health_path}"
        with contextlib.suppress(urllib.error.URLError, OSError), _DIRECT.open(url, timeout=PING_S) as answer:
            return bool(answer.status == 200)
        return False

    def terminate(self) -> None:
        self.healthy = False
        self._kill(signal.SIGTERM)

    def end(self, until: float) -> None:
        """Wait for the end, and force it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until - time.monotonic()))
        self._kill(signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    @property
    def pid(self) -> int:
        return self._process.pid


@dataclass
class Fleet:
    """The instances of one variant or deployment. `changed` is called when what can answer is other than before."""

    container: Container
    changed: Callable[[], None] = lambda: None
    _instances: list[_Instance] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self, count: int, limit_s: float) -> str:
        """Start `count` instances, and watch them from then on; once all are healthy "", or why they are not."""
        with self._lock:
            self._instances = [_Instance(self.container, number) for number in range(count)]
        threading.Thread(target=self._watch, name=f"fleet-{self.container.name}", daemon=True).start()
        deadline = time.monotonic() + limit_s
        while not self._stop.wait(LOOK_S):
            if len(self.ports()) >= count:
                return ""
            if time.monotonic() > deadline:
                restarts = sum(one.restarts for one in self._instances)
                return f"did not pass the health check {self.container.health_path} within {limit_s:g} s" + (
                    f"; it ended {restarts} times" if restarts else ""
                )
        return "was deleted"

    def ports(self) -> list[int]:
        """Where the healthy ones listen."""
        return [one.port for one in list(self._instances) if one.healthy]

    def pids(self) -> list[int]:
        """The processes, for tests that end one."""
        return [one.pid for one in list(self._instances)]

    def scale(self, count: int) -> None:
        """Have `count` instances; those that are too many end."""
        with self._lock:
            surplus, self._instances = self._instances[count:], self._instances[:count]
            first = len(self._instances)
            self._instances += [_Instance(self.container, number) for number in range(first, count)]
        self.changed()
        _end(surplus, GRACE_S)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End all of them."""
        self._stop.set()
        with self._lock:
            instances, self._instances = self._instances, []
        _end(instances, grace_s)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            with self._lock:
                instances = list(self._instances)
            moved = False
            for one in instances:
                if self._stop.is_set():
                    return
                with self._lock:
                    moved |= one in self._instances and one.look()
            if moved:
                self.changed()


def _end(instances: Sequence[_Instance], grace_s: float) -> None:
    for one in instances:
        one.terminate()
    until = time.monotonic() + grace_s
    for one in instances:
        one.end(until)
