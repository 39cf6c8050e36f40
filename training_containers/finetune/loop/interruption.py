"""Spot interruption: SIGTERM as a request to stop at the next point from which the job can resume."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

#: what a shell reports for a process ended by SIGTERM; both clouds then treat the job as stopped, not as failed
EXIT_INTERRUPTED: Final = 128 + signal.SIGTERM


class InterruptedTrainingError(Exception):
    """The job was asked to stop; whatever can be resumed is in the checkpoints."""


class Interruption:
    """Remembers that SIGTERM or SIGINT came."""

    def __init__(self) -> None:
        self._requested = False

    def install(self) -> None:
        """Take the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def requested(self) -> bool:
        """Whether a signal came."""
        return self._requested

    def check(self) -> None:
        """Raises InterruptedTrainingError when a signal came."""
        if self._requested:
            raise InterruptedTrainingError("interrupted; a restart of the same job resumes from its checkpoints")
