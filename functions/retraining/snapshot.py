"""The training data of a job: a snapshot of the labelled pairs that the serving containers wrote.

They write JSON lines of FeedbackPair to feedback/CLOUD/YYYYMMDDTHHMMSS-ID.jsonl, the time being that of the write, UTC:
what was written in a day, an hour or a minute has a prefix of its own.

A snapshot takes the newest pairs of the window, as many as the settings allow. Not a sample of the whole window: a
service is retrained because what users ask has changed, and a sample of a busy day would hold little of the last hour
and judge the new model by yesterday. Whoever wants more of the past raises OPPORTUNE_MAX_TRAINING_PAIRS.

However much there is, memory holds a few parts of an upload and the objects being read, and time ends it: what was
read by then is the snapshot, which says so.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, takewhile
from typing import Final, NamedTuple

from shared.contracts import CLOUDS, Cloud, Contract, FeedbackPair, decode, encode
from shared.deadline import Deadline
from shared.errors import ContractError, NotFoundError, OpportuneError, UnavailableError
from shared.ports import ObjectStore
from shared.values import ObjectEntry

#: objects read at once: a day of feedback is thousands of small ones
READERS: Final = 16
#: bytes of objects that are being read or wait for their turn, unless a single one has more
AHEAD: Final = 16 * 2**20
#: a container writes less at once; whatever this is, it is not read
MOST_BYTES: Final = 16 * 2**20
#: bytes of a part of the upload
PART: Final = 8 * 2**20
#: what one request of a listing finds at most: where there is more, shorter times are listed
PAGE: Final = 1000
#: clocks of containers may be ahead of ours
_AHEAD_S: Final = 60.0
_NO_TIME: Final = "there was no time to read more"


class Snapshot(Contract, frozen=True, kw_only=True):
    """What a job is trained on; kept beside it, and used again when the job is started again."""

    pairs: int
    new: int  # of these, the ones that the serving model has not seen
    bytes: int
    objects: int  # read, of all clouds
    # why lines or objects were not taken -> how many
    skipped: dict[str, int]
    first_damaged: str = ""  # where the first damaged line is, and what is wrong with it
    left_out: str = ""  # why older pairs of the window were left out; empty: every one was read
    without: dict[str, str]  # cloud whose feedback is missing or incomplete -> why


class Wanted(NamedTuple):
    """What a snapshot may hold."""

    start_s: float  # pairs received from then on
    end_s: float  # and before then
    seen_s: float  # received from then on: the serving model has not seen it
    pairs: int  # at most
    bytes: int  # at most
    new: int  # with fewer new pairs nothing is written


def data_key(job_id: str) -> str:
    """The snapshot's pairs."""
    return f"jobs/{job_id}/data/train.jsonl"


def snapshot_key(job_id: str) -> str:
    """What is known of the snapshot. It is written last: while it is missing, so is the snapshot."""
    return f"jobs/{job_id}/snapshot.json"


def taken(objects: ObjectStore, job_id: str) -> Snapshot | None:
    """The snapshot that an earlier start of the job took."""
    try:
        return decode(Snapshot, objects.get(snapshot_key(job_id)))
    except (NotFoundError, ContractError):
        return None


def take(
    stores: Mapping[Cloud, ObjectStore], own: Cloud, job_id: str, wanted: Wanted, now_s: float, deadline: Deadline
) -> Snapshot:
    """Write the newest pairs of all stores to the job's folder in the own one, each line once.

    What another store does not answer is missing, and so is what is not read by the deadline. Two starts at once write
    whole lines of the same window, whoever's part comes last; the snapshot of the first to finish stays.

    Raises:
        UnavailableError: the own store did not answer, or too slowly for the pairs that are needed.
    """
    without: dict[str, str] = {}
    until_s = max(now_s, wanted.end_s) + _AHEAD_S
    listings = [
        _told(_newest_first(cloud, store, folder, _stamp(wanted.start_s), _stamp(until_s)), cloud, own, without)
        for cloud, store in stores.items()
        for folder in CLOUDS
    ]
    shards = heapq.merge(*listings, key=lambda shard: shard.written, reverse=True)
    upload = _Upload(stores[own], data_key(job_id))
    sieve = _Sieve(wanted)
    pool = ThreadPoolExecutor(READERS)
    try:
        for shard, future in _reading(pool, stores, shards, sieve.skipped):
            if deadline.left() <= 0.0:
                sieve.left_out = _NO_TIME
                break
            try:
                body = future.result(timeout=deadline.left())
            except TimeoutError:
                sieve.left_out = _NO_TIME
                break
            except NotFoundError:
                sieve.skipped["expired"] += 1
                continue
            except OpportuneError as exc:
                if shard.cloud == own:
                    raise
                without[shard.cloud] = str(exc)
                continue
            for line in sieve.lines(shard.entry.key, body):
                upload.add(line)
            if sieve.left_out:
                break
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    snapshot = sieve.snapshot(without)
    if snapshot.new < wanted.new and sieve.left_out == _NO_TIME:
        raise UnavailableError(f"{own} objects", f"only {snapshot.pairs} labelled pairs could be read in time")
    if snapshot.new >= wanted.new:
        if (earlier := taken(stores[own], job_id)) is not None:
            return earlier
        upload.finish()
        stores[own].put(snapshot_key(job_id), encode(snapshot))
    return snapshot


class _Shard(NamedTuple):
    """An object that a container wrote."""

    written: str  # its stamp
    cloud: Cloud  # in whose store
    entry: ObjectEntry


def _stamp(at_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y%m%dT%H%M%S}"


def _newest_first(cloud: Cloud, store: ObjectStore, folder: str, first: str, last: str) -> Iterator[_Shard]:
    """The objects written from `first` on, the last ones first, listed only as far as they are asked for.

    Listings ascend. So a time with more objects than one request finds is listed as the times that its stamp, a digit
    longer, can be, the latest first.
    """

    def within(prefix: str) -> Iterator[_Shard]:
        found = list(islice(store.entries(f"feedback/{folder}/{prefix}"), PAGE))
        if len(found) < PAGE:
            shards = [_Shard(entry.key.rpartition("/")[2], cloud, entry) for entry in found]
            # A pair is written after it was received: an object written before the window holds nothing of it.
            yield from (shard for shard in reversed(shards) if shard.written >= first)
            return
        if len(prefix) == len(last):  # more than a page in one second
            entries = sorted(store.entries(f"feedback/{folder}/{prefix}"), reverse=True)
            yield from (_Shard(entry.key.rpartition("/")[2], cloud, entry) for entry in entries)
            return
        known = prefix + "T" if len(prefix) == len("YYYYMMDD") else prefix
        for digit in "9876543210":
            narrower = known + digit
            if first[: len(narrower)] <= narrower <= last[: len(narrower)]:
                yield from within(narrower)

    return within("".join(a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=True))))


def _told(shards: Iterator[_Shard], cloud: Cloud, own: Cloud, without: dict[str, str]) -> Iterator[_Shard]:
    """The shards of a cloud; where another than the own one goes silent, they end and it is said."""
    try:
        yield from shards
    except OpportuneError as exc:
        if cloud == own:
            raise
        without[cloud] = str(exc)


def _reading(
    pool: ThreadPoolExecutor,
    stores: Mapping[Cloud, ObjectStore],
    shards: Iterable[_Shard],
    skipped: Counter[str],
) -> Iterator[tuple[_Shard, Future[bytes]]]:
    """Each shard and its content, in this order, a few of them read ahead."""
    waiting: deque[tuple[_Shard, Future[bytes]]] = deque()
    ahead = 0
    for shard in shards:
        if shard.entry.size > MOST_BYTES:
            skipped["object too large"] += 1
            continue
        while waiting and (len(waiting) >= READERS or ahead + shard.entry.size > AHEAD):
            ahead -= waiting[0][0].entry.size
            yield waiting.popleft()
        waiting.append((shard, pool.submit(stores[shard.cloud].get, shard.entry.key)))
        ahead += shard.entry.size
    yield from waiting


class _Sieve:
    """Which lines are taken, and a count of the others."""

    def __init__(self, wanted: Wanted) -> None:
        self.skipped: Counter[str] = Counter()
        self.left_out = ""
        self._wanted = wanted
        self._known: set[bytes] = set()
        self._first_damaged = ""
        self._pairs = self._new = self._bytes = self._objects = 0

    def lines(self, key: str, body: bytes) -> Iterator[bytes]:
        """The lines of an object that are taken, up to the first that is one too many."""
        self._objects += 1
        for number, raw in enumerate(body.splitlines(), start=1):
            if not raw.strip():
                continue
            try:
                pair = decode(FeedbackPair, raw)
            except ContractError as exc:
                self.skipped["damaged"] += 1
                self._first_damaged = self._first_damaged or f"{key}, line {number}: {exc}"
                continue
            line = encode(pair) + b"\n"
            if why := self._refused(pair, line):
                self.skipped[why] += 1
                continue
            if self._pairs >= self._wanted.pairs or self._bytes + len(line) > self._wanted.bytes:
                most = f"{self._wanted.pairs} pairs and {self._wanted.bytes / 2**20:g} MB"
                self.left_out = f"at most {most} are trained on, the newest ones"
                return
            self._pairs += 1
            self._new += pair.received_s >= self._wanted.seen_s
            self._bytes += len(line)
            yield line

    def _refused(self, pair: FeedbackPair, line: bytes) -> str:
        if not self._wanted.start_s <= pair.received_s < self._wanted.end_s:
            return "outside the window"
        if not pair.question.strip() or not all(answer.strip() for answer in pair.answers):
            return "blank"
        digest = hashlib.blake2b(line, digest_size=16).digest()
        if digest in self._known:
            return "stored twice"
        self._known.add(digest)
        return ""

    def snapshot(self, without: dict[str, str]) -> Snapshot:
        """What was found."""
        return Snapshot(
            pairs=self._pairs,
            new=self._new,
            bytes=self._bytes,
            objects=self._objects,
            skipped=dict(self.skipped),
            first_damaged=self._first_damaged[:500],
            left_out=self.left_out,
            without=without,
        )


class _Upload:
    """An object written in parts, of which one is in memory."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._buffer = bytearray()
        self._parts = 0

    def add(self, line: bytes) -> None:
        """Append to the object."""
        self._buffer += line
        if len(self._buffer) >= PART:
            self._send()

    def finish(self) -> None:
        """Make the object."""
        if not self._parts:
            self._store.put(self._key, bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        self._store.finish_parts(self._key, self._parts)

    def _send(self) -> None:
        self._parts += 1
        self._store.put_part(self._key, self._parts, bytes(self._buffer))
        self._buffer.clear()
