"""Feedback store: labelled pairs, written as JSONL shards for training into a folder, S3 or Azure Blob."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from shared.contracts import FeedbackPair, encode
from shared.errors import ConfigurationError, OpportuneError
from shared.ports import Clock
from shared.settings import Settings

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where shards go; the part of an object store that is needed."""

    def put(self, key: str, body: bytes) -> None: ...


class DirectorySink:
    """A local folder; a shard appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, body: bytes) -> None:
        """Write, sync, rename. Raises OSError."""
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)


class _Prefixed:
    """A sink below a prefix."""

    def __init__(self, sink: Sink, prefix: str) -> None:
        self._sink = sink
        self._prefix = prefix.strip("/")

    def put(self, key: str, body: bytes) -> None:
        self._sink.put(f"{self._prefix}/{key}" if self._prefix else key, body)


def open_sink(address: str, settings: Settings) -> Sink:
    """The sink at `dir:PATH`, `s3://bucket/prefix` or `azure-blob:container/prefix`.

    Raises:
        ConfigurationError: another form.
    """
    scheme, _, rest = address.partition(":")
    place, _, prefix = rest.removeprefix("//").partition("/")
    if scheme == "dir" and rest:
        return DirectorySink(Path(rest))
    if scheme == "s3" and place:
        from shared.adapters.aws.objects import S3Objects
        from shared.adapters.aws.session import AwsSession

        return _Prefixed(S3Objects(AwsSession(), place), prefix)
    if scheme == "azure-blob" and place:
        from shared.adapters.aws.session import AwsSession
        from shared.adapters.azure.credential import azure_credential
        from shared.adapters.azure.objects import BlobObjects

        here = azure_credential(AwsSession().identity_token)
        return _Prefixed(BlobObjects(msgspec.structs.replace(settings, container=place), here), prefix)
    raise ConfigurationError("--feedback-store", address, "dir:PATH, s3://bucket/prefix, azure-blob:container/prefix")


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
    """Collects pairs and writes a shard every `every_s` seconds or `every_pairs` pairs.

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
        every_pairs: int = 64,
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
        self._shards: deque[_Shard] = deque()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feedback", daemon=True)
        self._thread.start()

    def append(self, pair: FeedbackPair) -> None:
        """Take a pair; returns at once."""
        with self._lock:
            self._fresh.append(pair)
            full = len(self._fresh) >= self._every_pairs
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
        """Turn the fresh pairs into a shard, within the bound."""
        with self._lock:
            if self._fresh:
                now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
                key = f"feedback/{self._cloud}/{now:%Y%m%dT%H%M%S}-{self._new_id()}.jsonl"
                self._shards.append(_Shard(key, tuple(self._fresh)))
                self._fresh = []
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
