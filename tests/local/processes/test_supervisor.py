"""Nothing is left running, however a run ends."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from local.processes.reaper import marked
from local.processes.supervisor import (
    PortInUseError,
    Service,
    ServiceFailedError,
    Supervisor,
    free_port,
    http_ok,
    require_port,
)

ROOT = Path(__file__).parents[3]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# A child that leaves the session of its parent, and both ignore SIGTERM.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "time.sleep(600)'], start_new_session=True); print('up', flush=True); time.sleep(600)",
]


def supervisor(tmp_path: Path, grace_s: float = 0.3) -> Supervisor:
    return Supervisor(tmp_path / "logs", console=Console(stderr=True, force_terminal=False), grace_s=grace_s)


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_start_waits_until_the_service_answers_and_stop_ends_it(tmp_path: Path) -> None:
    port = free_port()
    web = Service("web", [sys.executable, "-m", "http.server", str(port)], http_ok(f"http://127.0.0.1:{port}/"))
    with supervisor(tmp_path) as running:
        running.start(web)
        assert http_ok(f"http://127.0.0.1:{port}/")()
        assert running.names == ("web",)
        running.check()
    assert not http_ok(f"http://127.0.0.1:{port}/")()
    assert require_port(port) == port


def test_children_that_ignore_sigterm_and_leave_the_session_end_too(tmp_path: Path) -> None:
    with supervisor(tmp_path) as running:
        running.start(Service("stubborn", STUBBORN))
        assert wait_for(lambda: len(marked(running.mark)) == 2)
        processes = marked(running.mark)
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert marked(running.mark) == []


def test_everything_ends_when_the_body_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), supervisor(tmp_path) as running:
        running.start(Service("sleep", SLEEP))
        raise ZeroDivisionError
    assert marked(running.mark) == []


def test_a_service_that_dies_while_starting_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    dies = Service("broken", [sys.executable, "-c", "raise SystemExit('no such model: x')"], health=lambda: False)
    with (
        supervisor(tmp_path) as running,
        pytest.raises(ServiceFailedError, match=r"exit code 1(.|\n)*no such model"),
    ):
        running.start(dies)


def test_a_service_that_dies_later_is_reported_by_check(tmp_path: Path) -> None:
    with supervisor(tmp_path) as running:
        running.start(Service("sleep", SLEEP))
        os.kill(running.pid("sleep"), signal.SIGKILL)
        assert wait_for(lambda: psutil.Process(running.pid("sleep")).status() == psutil.STATUS_ZOMBIE)
        with pytest.raises(ServiceFailedError, match="sleep was killed by signal 9"):
            running.check()


def test_a_service_that_never_becomes_healthy_is_reported(tmp_path: Path) -> None:
    with supervisor(tmp_path) as running, pytest.raises(ServiceFailedError, match=r"not healthy after 0\.2 s"):
        running.start(Service("mute", SLEEP, health=lambda: False, start_timeout_s=0.2))


def test_one_service_can_be_ended_alone(tmp_path: Path) -> None:
    with supervisor(tmp_path) as running:
        running.start(Service("one", SLEEP), Service("two", SLEEP))
        running.stop_one("one")
        assert running.names == ("two",)
        assert len(marked(running.mark)) == 1
        running.check()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} is in use"):
            require_port(port)


SCRIPT = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from local.processes.supervisor import Service, Supervisor

    with Supervisor(Path(sys.argv[1]), grace_s=0.3) as running:
        running.start(Service("stubborn", {command!r}))
        while "up" not in running.log("stubborn").read_text():
            time.sleep(0.02)
        print(running.mark, flush=True)
        time.sleep(600)
    """
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.slow
def test_nothing_is_left_when_the_supervising_program_gets_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    script = SCRIPT.format(command=STUBBORN)
    program = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert program.stdout is not None
    mark = program.stdout.readline().decode().strip()
    assert len(marked(mark)) == 2
    program.send_signal(number)
    program.communicate(timeout=20)
    assert program.returncode != 0
    assert wait_for(lambda: marked(mark) == [])
