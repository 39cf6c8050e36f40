"""Orphan processes: ends what a supervisor leaves behind when it is killed before it can clean up.

`python -m local.processes.reaper MARK` waits until its standard input closes, which the kernel does when the
supervisor ends, however it ends. Then every process that carries MARK in its environment is ended. A supervisor that
stopped everything itself leaves nothing to find.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Final

import psutil

#: environment variable that every process below a supervisor inherits; its value names the supervisor. None of ours by
#: name, as a container hands no setting of ours on to the programs that it starts
MARK: Final = "LOCAL_SUPERVISOR"


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that inherited `mark`, also one that left its session or lost its parent."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            continue  # gone meanwhile, or not ours
    return found


def end(mark: str, grace_s: float) -> None:
    """Ask every process of `mark` to end, then kill what is left after `grace_s`, until none is found."""
    _signal(marked(mark), signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
    # A process may start another one between the search and the signal, so look again.
    for _ in range(20):
        if not (left := marked(mark)):
            return
        _signal(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=0.5)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end(sys.argv[1], grace_s=5.0)


if __name__ == "__main__":
    main()
