"""The file in which a cloud's endpoints tell its inference route who answers. Written whole, read when it changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A variant or deployment that is up."""

    name: str
    weight: float
    ports: tuple[int, ...]  # of its healthy containers
    path: str = "/invocations"
    timeout_s: float = 60.0
    concurrent: int = 0  # requests at a time and instance; 0: any number


class RoutingTable:
    """Endpoint name -> its targets, in a file that one process writes and another reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read_at: tuple[int, int] | None = None
        self._known: dict[str, tuple[Target, ...]] = {}

    def write(self, endpoints: Mapping[str, tuple[Target, ...]]) -> None:
        """Replace the file."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            making = self._path.with_name(f"{self._path.name}.making")
            making.write_bytes(msgspec.json.encode(endpoints))
            making.replace(self._path)

    def read(self) -> Mapping[str, tuple[Target, ...]]:
        """What the file says; nothing while there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return {}
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._read_at:
            self._known = msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[Target, ...]])
            self._read_at = stamp
        return self._known
