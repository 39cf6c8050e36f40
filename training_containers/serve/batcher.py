"""Dynamic batching: whatever waits when the engine is free is answered together.

Right after a batch its clients come back one by one; the first of them would be answered alone, with all others
waiting behind it. So the next batch is held while requests keep arriving, until all those clients are back, for at
most a tenth of a batch's time. A client that is alone never waits.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Final

from shared.errors import UnavailableError
from training_containers.model.engines.protocol import Answer, Engine

log = logging.getLogger(__name__)

_GAP_S: Final = 0.004  # arrivals further apart than this do not belong together
_HOLD_SHARE: Final = 0.1  # of a batch's time


class QueueFullError(UnavailableError):
    """Too many requests wait (HTTP 429)."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__("the model", f"{waiting} requests wait already; retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class DeadlineExceededError(UnavailableError):
    """The answer did not come within the caller's deadline (HTTP 504)."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__("the model", f"no answer within the deadline of {timeout_s:g} s")


class ClosedError(UnavailableError):
    """The batcher takes no more requests (HTTP 503)."""

    def __init__(self) -> None:
        super().__init__("the model", "it is being unloaded")


@dataclass(slots=True)
class _Waiting:
    prompt: str
    max_new_tokens: int
    answer: Future[Answer] = field(default_factory=Future)


class Batcher:
    """Owns the engine's one thread and the bounded queue before it."""

    def __init__(self, engine: Engine, *, max_batch: int = 16, max_waiting: int = 64, name: str = "model") -> None:
        self.engine = engine
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._batch_s = 0.05  # smoothed time of one batch, for Retry-After
        self._known, self._last_end = 0, 0.0  # clients in or behind the last batch when it ended
        self._thread = threading.Thread(target=self._work, name=f"batcher-{name}", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait; those being answered are not counted."""
        return len(self._queue)

    def answer(self, prompt: str, max_new_tokens: int, timeout_s: float) -> Answer:
        """The engine's answer, at most `timeout_s` from now.

        Raises:
            InvalidInputError: the prompt does not fit into the model's context.
            QueueFullError, DeadlineExceededError, ClosedError: see there.
        """
        self.engine.check(prompt, max_new_tokens)
        waiting = _Waiting(prompt, max_new_tokens)
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._queue) >= self._max_waiting:
                batches = math.ceil(self._max_waiting / self._max_batch)
                raise QueueFullError(len(self._queue), max(1, math.ceil(batches * self._batch_s)))
            self._queue.append(waiting)
            self._changed.notify()
        try:
            return waiting.answer.result(timeout_s)
        except FutureTimeoutError as exc:
            # still in the queue: it will be skipped; already in a batch: its answer is dropped
            waiting.answer.cancel()
            raise DeadlineExceededError(timeout_s) from exc

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more requests, finish those that were taken, then stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _next_batch(self) -> list[_Waiting] | None:
        """Blocks until there is work; None once closed and empty."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if not self._queue:
                return None
            self._hold()
            return [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]

    def _hold(self) -> None:
        """Wait, with the lock released, for those who were answered together a moment ago."""
        wanted = min(self._known, self._max_batch)
        until = self._last_end + _HOLD_SHARE * self._batch_s
        while len(self._queue) < wanted and not self._closed and (left_s := until - time.perf_counter()) > 0:
            if not self._changed.wait(min(_GAP_S, left_s)):
                return

    def _work(self) -> None:
        while (taken := self._next_batch()) is not None:
            batch = [w for w in taken if w.answer.set_running_or_notify_cancel()]
            if not batch:
                continue
            begin = time.perf_counter()
            try:
                answers = self.engine.generate([w.prompt for w in batch], [w.max_new_tokens for w in batch])
            except BaseException as exc:  # not swallowed: it is raised in every waiting request's own thread
                log.exception("batch failed", extra={"action": "generate", "batch": len(batch)})
                for waiting in batch:
                    waiting.answer.set_exception(exc)
                continue
            self._known, self._last_end = len(batch) + len(self._queue), time.perf_counter()
            self._batch_s += 0.2 * (self._last_end - begin - self._batch_s)
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.answer.set_result(answer)
