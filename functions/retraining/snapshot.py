"""The training data of a job: a snapshot of the labelled pairs that the serving containers wrote.

They write JSON lines of FeedbackPair to feedback/CLOUD/YYYYMMDDTHHMMSS-ID.jsonl, the time being that of the write.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from shared.contracts import FeedbackPair, decode, encode
from shared.errors import ContractError
from shared.ports import ObjectStore

PREFIX: Final = "feedback/"
#: objects read at once: a day of feedback is thousands of small ones
READERS: Final = 16


class Snapshot(NamedTuple):
    """Training data as it was at one moment."""

    body: bytes  # JSON lines
    received_s: list[float]  # of each line, ascending
    skipped: list[str]  # lines that are no FeedbackPair, each named by object and number


class Pairs(NamedTuple):
    """What one store holds of a window."""

    lines: dict[bytes, float]  # a pair's line -> when it was received
    skipped: list[str]


def pairs_of(store: ObjectStore, start_s: float, end_s: float) -> Pairs:
    """The store's pairs received in [start_s, end_s).

    One damaged line must not stop every retrain, so it is skipped and reported.

    Raises:
        UnavailableError: the store did not answer.
    """
    # A pair is written after it was received: an object written before the window holds nothing of it.
    first = f"{dt.datetime.fromtimestamp(start_s, dt.UTC):%Y%m%dT%H%M%S}"
    found: dict[bytes, float] = {}
    skipped: list[str] = []
    keys = [entry.key for entry in store.entries(PREFIX) if entry.key.rpartition("/")[2] >= first]
    with ThreadPoolExecutor(READERS) as readers:
        for key, body in zip(keys, readers.map(store.get, keys), strict=True):
            for number, line in enumerate(body.splitlines(), start=1):
                if not line.strip():
                    continue
                try:
                    pair = decode(FeedbackPair, line)
                except ContractError as exc:
                    skipped.append(f"{key}, line {number}: {exc}")
                    continue
                if start_s <= pair.received_s < end_s:
                    found[encode(pair)] = pair.received_s
    return Pairs(found, skipped)


def merged(parts: Iterable[Pairs]) -> Snapshot:
    """The pairs of all stores, each line once, oldest first: the same input gives the same bytes."""
    parts = list(parts)
    found = {line: received_s for part in parts for line, received_s in part.lines.items()}
    ordered = sorted(found.items(), key=lambda item: (item[1], item[0]))
    skipped = [words for part in parts for words in part.skipped]
    return Snapshot(b"".join(line + b"\n" for line, _ in ordered), [received for _, received in ordered], skipped)
