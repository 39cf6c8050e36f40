"""The memory that a function is given: what uses more is killed, as its cloud does.

Peak resident memory is looked at, as the kernel keeps it, so that a peak between two looks counts as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

LOOK_S: Final = 0.05


class MemoryLimit:
    """Watches processes from a thread until `close`; `exceeded` says whether it killed one."""

    def __init__(self, name: str, limit_mib: float, pids: Callable[[], Iterable[int]]) -> None:
        self.exceeded = False
        self._name, self._limit_mib, self._pids = name, limit_mib, pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"memory-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            for pid in self._pids():
                peak_mib = peak_memory_mib(pid)
                if peak_mib is not None and peak_mib > self._limit_mib:
                    self.exceeded = True
                    log.error("%s used %.0f of %.0f MB and is killed", self._name, peak_mib, self._limit_mib)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return


def peak_memory_mib(pid: int) -> float | None:
    """Peak resident memory of a process so far, in MiB; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
