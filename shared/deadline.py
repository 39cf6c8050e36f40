"""Wall-clock limits for calls that may never return: a server that accepts and says nothing, or a byte a second.

The SDKs' own time-outs are per socket operation, so a dripping answer or a Retry-After header outlasts them all.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from shared.errors import UnavailableError

T = TypeVar("T")


class Deadline:
    """A moment by which something must be over, in monotonic seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self._at - self._clock()


def bounded(what: str, seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises, if it does so within `seconds`.

    A call that does not is left alone in its thread: nothing in Python can end it, and what it may still do is
    conditional or harmless twice, as everything here is.

    Raises:
        UnavailableError: `what` did not answer in time.
    """
    answer: queue.SimpleQueue[tuple[bool, object]] = queue.SimpleQueue()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answer.put((True, context.run(call)))
        except BaseException as exc:
            answer.put((False, exc))

    threading.Thread(target=run, name=f"bounded {what}", daemon=True).start()
    try:
        returned, result = answer.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise UnavailableError(what, f"no answer within {seconds:.1f} s") from None
    if not returned:
        assert isinstance(result, BaseException)
        raise result
    return result  # type: ignore[return-value]  # the queue holds what `call` returned
