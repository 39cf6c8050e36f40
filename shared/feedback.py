"""Labelled pairs as JSON lines in the object store: serving containers append, a training job's snapshot reads."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from shared.contracts import FeedbackPair, decode, encode
from shared.errors import ContractError
from shared.ports import ObjectStore


class ObjectFeedback:
    """FeedbackStore: one object per append under feedback/SERVICE/DAY/, named by its content."""

    def __init__(self, objects: ObjectStore, service: str) -> None:
        self._objects = objects
        self._service = service

    def append(self, pairs: Iterable[FeedbackPair]) -> None:
        """Write the pairs; the same pairs again make the same object."""
        by_day: dict[str, list[FeedbackPair]] = {}
        for pair in pairs:
            by_day.setdefault(_day(pair.received_s), []).append(pair)
        for day, of_day in by_day.items():
            body = b"".join(encode(pair) + b"\n" for pair in of_day)
            digest = hashlib.sha256(body).hexdigest()[:16]
            first_ms = int(min(pair.received_s for pair in of_day) * 1000)
            self._objects.put(f"feedback/{self._service}/{day}/{first_ms}-{digest}.jsonl", body)


class Snapshot(NamedTuple):
    """Training data as it was at one moment."""

    body: bytes  # JSON lines
    received_s: list[float]  # of each line, ascending
    skipped: list[str]  # lines that are no FeedbackPair, each named by object and number


def snapshot(stores: Iterable[ObjectStore], service: str, start_s: float, end_s: float) -> Snapshot:
    """The pairs received in [start_s, end_s), each line once, oldest first: the same input gives the same bytes.

    One damaged line must not stop every retrain, so it is skipped and reported.

    Raises:
        UnavailableError: a store did not answer.
    """
    found: dict[bytes, float] = {}
    skipped: list[str] = []
    first_day, last_day = _day(start_s), _day(end_s)
    prefix = f"feedback/{service}/"
    for store in stores:
        for key in store.list(prefix):
            if not first_day <= key.removeprefix(prefix).partition("/")[0] <= last_day:
                continue
            for number, line in enumerate(store.get(key).splitlines(), start=1):
                if not line.strip():
                    continue
                try:
                    pair = decode(FeedbackPair, line)
                except ContractError as exc:
                    skipped.append(f"{key}, line {number}: {exc}")
                    continue
                if start_s <= pair.received_s < end_s:
                    found[encode(pair)] = pair.received_s
    ordered = sorted(found.items(), key=lambda item: (item[1], item[0]))
    return Snapshot(b"".join(line + b"\n" for line, _ in ordered), [received for _, received in ordered], skipped)


def _day(time_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(time_s, dt.UTC):%Y-%m-%d}"
