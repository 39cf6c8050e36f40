"""Documents as values: what a service remembers between two function calls. `shared.state` reads and writes them.

| kind     | key                | body                                                          |
|----------|--------------------|---------------------------------------------------------------|
| decision | decision_id        | Decision, written once per slot                               |
| job      | job_id             | JobRecord, in the table of the cloud that trains it           |
| tally    | service            | JobTotals: jobs that ended long ago, added up                 |
| lock     | service            | which job may train now                                       |
| routes   | service            | RouteTable, one copy per cloud                                |
| control  | service            | the operator's switch: paused or not, jobs to stop            |

A document that cannot be read, or that a newer program wrote, is an `Unreadable` among the others: whoever asked goes
on without it and says so.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import msgspec

from shared.contracts import IN_FLIGHT, Cloud, Contract, Decision, JobRecord, JobStatus, RouteTable, decode
from shared.errors import ContractError, UnknownVersionError
from shared.values import Document

T = TypeVar("T", bound=Contract)


class Unreadable(NamedTuple):
    """A document that is there and says nothing to this program."""

    kind: str
    key: str
    reason: str
    newer: bool  # written by a newer program: it must not be overwritten
    etag: str = ""

    def __str__(self) -> str:
        """Which, and why."""
        return f"{self.kind} document {self.key}: {self.reason}"


class Unread(NamedTuple):
    """Something that could not be read, and why: unknown, which is never the same as nothing."""

    reason: str

    def __str__(self) -> str:
        """Why."""
        return self.reason


class Held(NamedTuple):
    """A job record and the tag under which it may be replaced."""

    record: JobRecord
    etag: str


class Lock(Contract, frozen=True):
    """Which job of a service may train; void after `expires_s` if its record never appeared."""

    job_id: str
    cloud: Cloud
    expires_s: float


class JobTotals(Contract, frozen=True):
    """Jobs added up: every job of the service in this cloud with an id up to `through`."""

    through: str = ""
    started: int = 0
    live: int = 0
    cost_usd: float = 0.0
    last_live: JobRecord | None = None  # the newest of them that went live
    ended: dict[str, int] = msgspec.field(default_factory=dict)  # status -> how many ended so
    timed: int = 0  # those whose time on a machine is known, and that time
    timed_s: float = 0.0

    def counting(self, record: JobRecord) -> JobTotals:
        """With one job more."""
        live = record.status is JobStatus.LIVE
        timed = record.started_s is not None and record.finished_s is not None
        return self.plus(
            JobTotals(
                through=record.job.job_id,
                started=int(record.started_s is not None),
                live=int(live),
                cost_usd=record.cost_usd or 0.0,
                last_live=record if live else None,
                ended={} if record.status in IN_FLIGHT else {record.status.value: 1},
                timed=int(timed),
                timed_s=max(0.0, (record.finished_s or 0.0) - (record.started_s or 0.0)) if timed else 0.0,
            )
        )

    def plus(self, other: JobTotals) -> JobTotals:
        """Both together."""
        lives = [record for record in (self.last_live, other.last_live) if record is not None]
        return JobTotals(
            through=max(self.through, other.through),
            started=self.started + other.started,
            live=self.live + other.live,
            cost_usd=self.cost_usd + other.cost_usd,
            last_live=max(lives, key=lambda record: record.job.slot_s, default=None),
            ended={how: self.ended.get(how, 0) + other.ended.get(how, 0) for how in {*self.ended, *other.ended}},
            timed=self.timed + other.timed,
            timed_s=self.timed_s + other.timed_s,
        )


class Control(Contract, frozen=True):
    """The operator switch: no new retrains and no releases while paused, and jobs that are to end."""

    paused: bool
    reason: str
    changed_s: float = 0.0
    stopped_jobs: tuple[str, ...] = ()


class ServiceDocuments(NamedTuple):
    """What every tick reads of one cloud, in one request; None where there is none."""

    routes: RouteTable | Unreadable | None
    totals: JobTotals | Unreadable | None
    control: Control | Unreadable | None
    decision: Decision | Unreadable | None
    etags: dict[str, str]  # kind -> what a conditional write needs


class Jobs(NamedTuple):
    """Job records of a service, oldest first, and those that cannot be read."""

    records: list[JobRecord]
    unreadable: list[Unreadable]


def decoded(kind: str, key: str, document: Document, of: type[T]) -> T | Unreadable:
    """The document as what it should be, or why it cannot be."""
    try:
        return decode(of, document.body)
    except UnknownVersionError as exc:
        return Unreadable(kind, key, str(exc), newer=True, etag=document.etag)
    except ContractError as exc:
        return Unreadable(kind, key, str(exc), newer=False, etag=document.etag)
