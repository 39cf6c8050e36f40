"""Feedback store: labelled pairs, written as JSONL shards for training into an object store."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from shared.contracts import FeedbackPair, encode
from shared.errors import OpportuneError
from shared.ports import Clock

log = logging.getLogger(__name__)

#: a shard is cut at this size: whoever reads a day of them holds a few in memory at once
SHARD_BYTES: Final = 2**20


class Sink(Protocol):
    """Where shards go; the part of an object store that is needed."""

    def put(self, key: str, body: bytes) -> None: ...


class Counters(Protocol):
    """What the writer counts."""

    def stored(self, pairs: int) -> None: ...

    def put_failed(self) -> None: ...

    def dropped(self, pairs: int) -> None: ...


class _Shard(NamedTuple):
    """One object to write; its key is chosen once, so a repeated write replaces itself."""

    key: str
    pairs: tuple[FeedbackPair, ...]


class FeedbackWriter:
    """Collects pairs and writes a shard every `every_s` seconds, `every_pairs` pairs or SHARD_BYTES.

    A failed write is kept and repeated; over `max_kept` pairs the oldest are given up and counted. What came in
    the last `every_s` seconds is lost if the process is killed outright.
    """

    def __init__(
        self,
        sink: Sink,
        cloud: str,
        counters: Counters,
        *,
        every_s: float = 5.0,
        every_pairs: int = 2000,
        max_kept: int = 10_000,
        clock: Clock = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._sink = sink
        self._cloud = cloud
        self._counters = counters
        self._every_s = every_s
        self._every_pairs = every_pairs
        self._max_kept = max_kept
        self._clock = clock
        self._new_id = new_id
        self._fresh: list[FeedbackPair] = []
        self._fresh_bytes = 0
        self._shards: deque[_Shard] = deque()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feedback", daemon=True)
        self._thread.start()

    def append(self, pair: FeedbackPair) -> None:
        """Take a pair; returns at once."""
        size = len(encode(pair))
        with self._lock:
            self._fresh.append(pair)
            self._fresh_bytes += size
            full = len(self._fresh) >= self._every_pairs or self._fresh_bytes >= SHARD_BYTES
        if full:
            self._wake.set()

    @property
    def kept(self) -> int:
        """Pairs not yet in the store."""
        with self._lock:
            return len(self._fresh) + sum(len(s.pairs) for s in self._shards)

    def flush(self) -> bool:
        """Write everything now; False when the store refused, and what it refused is kept."""
        with self._writing:
            self._cut()
            while (shard := self._oldest()) is not None:
                body = b"".join(encode(pair) + b"\n" for pair in shard.pairs)
                try:
                    self._sink.put(shard.key, body)
                except (OpportuneError, OSError) as exc:
                    self._counters.put_failed()
                    log.warning("feedback kept", extra={"action": "feedback", "kept": self.kept, "reason": str(exc)})
                    return False
                with self._lock:
                    self._shards.popleft()
                self._counters.stored(len(shard.pairs))
            return True

    def close(self) -> None:
        """Write what is left, then stop."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        if not self.flush():
            log.error("feedback lost", extra={"action": "feedback", "pairs": self.kept})

    def _oldest(self) -> _Shard | None:
        with self._lock:
            return self._shards[0] if self._shards else None

    def _cut(self) -> None:
        """Turn the fresh pairs into shards, within the bound."""
        with self._lock:
            for pairs in _bounded(self._fresh, self._every_pairs):
                now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
                key = f"feedback/{self._cloud}/{now:%Y%m%dT%H%M%S}-{self._new_id()}.jsonl"
                self._shards.append(_Shard(key, pairs))
            self._fresh, self._fresh_bytes = [], 0
            lost = 0
            while len(self._shards) > 1 and sum(len(s.pairs) for s in self._shards) > self._max_kept:
                lost += len(self._shards.popleft().pairs)
        if lost:
            self._counters.dropped(lost)
            log.error("feedback dropped", extra={"action": "feedback", "pairs": lost})

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            if not self.flush():
                self._stop.wait(self._every_s)  # do not hammer a store that is down


def _bounded(pairs: Sequence[FeedbackPair], most: int) -> Iterator[tuple[FeedbackPair, ...]]:
    """The pairs in groups of at most `most` and, of more than one, SHARD_BYTES: a slow store lets many gather."""
    group: list[FeedbackPair] = []
    size = 0
    for pair in pairs:
        length = len(encode(pair))
        if group and (len(group) >= most or size + length > SHARD_BYTES):
            yield tuple(group)
            group, size = [], 0
        group.append(pair)
        size += length
    if group:
        yield tuple(group)
