"""What the ports hand over: plain values, so that what is planned from them needs no port."""

from __future__ import annotations

from typing import NamedTuple

from shared.contracts import Release

#: (kind, key) of a document
DocumentKey = tuple[str, str]


class Served(NamedTuple):
    """What the metrics say of one cloud's serving containers."""

    latency_s: float | None  # mean over the last two slots; None without requests
    seen_s: float | None  # when they were last scraped; None when that is too long ago to know


class Document(NamedTuple):
    """A stored document and the tag that a conditional write needs."""

    body: bytes
    etag: str


class ObjectEntry(NamedTuple):
    """A stored object as a listing shows it."""

    key: str
    size: int
    modified_s: float


class TrainingStatus(NamedTuple):
    """What the training service says of a job. `state` is one of: running, succeeded, failed, stopped."""

    state: str
    reason: str
    started_s: float | None  # when a machine began to work on it; None while none did
    finished_s: float | None
    billed_s: float | None = None  # what the service charges for, where it says so (spot)
    capacity: bool = False  # it ended because the cloud had no machine for it


class HostState(NamedTuple):
    """What an endpoint is doing now."""

    version: str | None  # takes the largest share of the traffic; None: the endpoint never had one, or is not there
    url: str  # where it is asked
    healthy: bool = True  # it can answer
    updating: bool = False  # the last release is still being loaded, or what cannot answer is being mended
    reason: str = ""  # why it is not healthy, or why its last release is not in force, in the service's words
    release: Release | None = None  # what its instances are to serve; None: nothing was released yet


class Standing(NamedTuple):
    """An endpoint as its cloud's management knows it."""

    state: str  # the service's own word; "" where there is none
    ready: bool = False  # it answers
    failed: bool = False  # it will not, unless somebody does something
    reason: str = ""  # why it failed, or what it waits for
    lacks: str = ""  # what its containers need and were not given
