"""Process supervisor: starts processes, waits until they are healthy, ends all of them however this process ends.

    with Supervisor(log_dir) as supervisor:
        supervisor.start(Service("web", [sys.executable, "-m", "web"], health=http_ok(f"http://127.0.0.1:{port}/")))
        ...
        supervisor.check()

Each process gets a session of its own (a Ctrl-C in the terminal reaches only this one), a log file and a mark in its
environment by which its descendants are found again. A reaper process cleans up after a `kill -9`.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from rich.console import Console

from local.processes.reaper import MARK, end, marked
from shared.errors import InvalidInputError, OpportuneError

TAIL_LINES: Final = 15
TOOLS: Final = Path(__file__).parents[2] / ".tools" / "bin"
# Below the range that outgoing connections take their ports from, so that none grabs a port before it is bound.
PORTS: Final = range(20000, 32000)

# A proxy for the outside world does not lead back to this machine.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Health = Callable[[], bool]


class PortInUseError(InvalidInputError):
    """A port that was asked for is taken."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use; stop the program that listens on it, or choose another port")


class ServiceFailedError(OpportuneError):
    """A process ended or never became healthy; the message holds the end of its log."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        super().__init__(f"{name} {what}; the end of {log}:\n{tail(log)}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Service:
    """One process to run. Without `health` it counts as up once it has started."""

    name: str
    command: Sequence[str]
    health: Health | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)  # changes to this process's environment; None removes
    cwd: Path | None = None
    start_timeout_s: float = 120.0  # generous: a busy machine is slow, a broken service ends by itself


class Supervisor:
    """The processes of one run. Use as a context manager, in the main thread for the signals to be handled."""

    def __init__(self, log_dir: Path, *, console: Console | None = None, grace_s: float = 5.0) -> None:
        self.log_dir = log_dir
        self.mark = secrets.token_hex(8)
        self._console = console or Console(stderr=True)
        self._grace_s = grace_s
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._services: dict[str, Service] = {}
        self._started_at: dict[str, float] = {}
        self._layers: list[list[str]] = []  # names, per call of `spawn`
        self._reaper: subprocess.Popen[bytes] | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Supervisor:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._reaper = subprocess.Popen(
            [sys.executable, "-m", "local.processes.reaper", self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            # Without the mark of a supervisor above this one, which would end the reaper before its work is done.
            env={name: value for name, value in os.environ.items() if name != MARK},
        )
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, _exit)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self, *services: Service) -> None:
        """Start all of `services`, then wait until every one is healthy. Later calls may depend on them.

        Raises:
            ServiceFailedError: one ended or was not healthy in time; the others go on until `stop`.
        """
        self.spawn(*services)
        self.wait(*(service.name for service in services))

    def spawn(self, *services: Service) -> None:
        """Start all of `services` without waiting for them. What is started later ends first."""
        self._layers.append([service.name for service in services])
        for service in services:
            self._spawn(service)

    def wait(self, *names: str) -> None:
        """Wait until the named services are healthy.

        Raises:
            ServiceFailedError: one ended or was not healthy in time.
        """
        waiting = {name: self._services[name] for name in names}
        with self._status() as show:
            while waiting:
                show(f"starting {', '.join(waiting)}")
                for name, service in list(waiting.items()):
                    self._check_alive(name)
                    if service.health is None or service.health():
                        del waiting[name]
                    elif time.monotonic() - self._started_at[name] > service.start_timeout_s:
                        raise ServiceFailedError(
                            name, f"was not healthy after {service.start_timeout_s:g} s", self.log(name)
                        )
                if waiting:
                    time.sleep(0.05)

    def check(self) -> None:
        """Raises ServiceFailedError when a process has ended."""
        for name in self._running:
            self._check_alive(name)

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self.log_dir / f"{name}.log"

    def pid(self, name: str) -> int:
        """The process id of `name`."""
        return self._running[name].pid

    @property
    def names(self) -> tuple[str, ...]:
        """The running services, in the order they were started."""
        return tuple(self._running)

    def stop_one(self, name: str) -> None:
        """End one service (a part that fails, in a demonstration or a test); unknown names are ignored."""
        process = self._running.pop(name, None)
        if process is not None:
            _end_groups([process], self._grace_s)

    def stop(self) -> None:
        """End everything that was started, and what that started in turn. Safe to repeat.

        What was started last ends first, so that it can still use what it depends on.
        """
        if self._reaper is None:
            return
        with _uninterrupted(), self._status() as show:
            if self._running:
                show(f"stopping {len(self._running)} processes")
            for layer in reversed(self._layers):
                _end_groups([self._running.pop(name) for name in layer if name in self._running], self._grace_s)
            self._layers.clear()
            if marked(self.mark):
                end(self.mark, grace_s=self._grace_s)
            assert self._reaper.stdin is not None
            self._reaper.stdin.close()
            self._reaper.wait()
            self._reaper = None
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _spawn(self, service: Service) -> None:
        if service.name in self._running:
            raise ValueError(f"a service named {service.name} is running")
        self._services[service.name] = service
        self._started_at[service.name] = time.monotonic()
        env = {
            name: value for name, value in {**os.environ, **service.env, MARK: self.mark}.items() if value is not None
        }
        with self.log(service.name).open("ab") as log:
            self._running[service.name] = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=service.cwd,
                start_new_session=True,
            )

    def _check_alive(self, name: str) -> None:
        code = self._running[name].poll()
        if code is not None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ServiceFailedError(name, how, self.log(name))

    @contextlib.contextmanager
    def _status(self) -> Iterator[Callable[[str], None]]:
        if not self._console.is_terminal:
            yield lambda text: None
            return
        with self._console.status("") as status:
            yield lambda text: status.update(text)


def free_port() -> int:
    """A free TCP port on the loopback interface."""
    for port in random.SystemRandom().sample(PORTS, 200):
        with contextlib.suppress(PortInUseError):
            return require_port(port)
    raise InvalidInputError(f"no free port between {PORTS.start} and {PORTS.stop}; end some programs that listen")


def require_port(port: int) -> int:
    """`port`, when it is free. Raises PortInUseError."""
    with socket.socket() as probe:
        # As servers do, so that a connection that lingers from an earlier run does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise PortInUseError(port) from exc
    return port


def tool(name: str) -> Path:
    """A program that `make install` fetched, else one on PATH. Raises InvalidInputError when there is neither."""
    fetched = TOOLS / name
    if fetched.exists():
        return fetched
    if found := shutil.which(name):
        return Path(found)
    raise InvalidInputError(f"{name} was not found in {TOOLS} or on PATH; run `make install`")


def http_ok(url: str) -> Health:
    """Healthy when a GET answers with a status below 400."""

    def health() -> bool:
        try:
            with _DIRECT.open(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    return health


def tcp_ok(port: int) -> Health:
    """Healthy when the port accepts connections."""

    def health() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            return False

    return health


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (empty)"


def _end_groups(processes: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """TERM to each process group, KILL to what is left of it after `grace_s`."""
    for process in processes:
        _kill_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        # The leader may be gone while a child of its group lives on.
        _kill_group(process.pid, signal.SIGKILL)
        process.wait()


def _kill_group(pgid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not interrupt the cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
