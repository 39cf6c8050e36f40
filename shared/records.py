"""Typed documents over a DocumentStore: what a service remembers between two function calls.

| kind     | key                | body                                                          |
|----------|--------------------|---------------------------------------------------------------|
| decision | decision_id        | Decision, written once per slot                               |
| job      | job_id             | JobRecord, in the table of the cloud that trains it           |
| tally    | service            | jobs that ended long ago, added up                            |
| lock     | service            | which job may train now                                       |
| routes   | service            | RouteTable, one copy per cloud                                |
| control  | service            | whether a person paused the service                           |
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from shared.contracts import Cloud, Decision, JobRecord, JobStatus, RouteTable, decode, encode
from shared.errors import ConflictError
from shared.ports import DocumentStore

#: jobs read at once
_PAGE: Final = 200


class Held(NamedTuple):
    """A job record and the tag under which it may be replaced."""

    record: JobRecord
    etag: str


class Lock(msgspec.Struct, frozen=True):
    """Which job of a service may train; void after `expires_s` if its record never appeared."""

    job_id: str
    cloud: Cloud
    expires_s: float


class Tally(msgspec.Struct, frozen=True):
    """Jobs added up: every job of the service in this cloud with an id up to `through`."""

    through: str = ""
    started: int = 0
    live: int = 0
    cost_usd: float = 0.0
    last_live: JobRecord | None = None  # the newest of them that went live

    def counting(self, record: JobRecord) -> Tally:
        """With one job more."""
        live = record.status is JobStatus.LIVE
        return self.plus(
            Tally(
                through=record.job.job_id,
                started=int(record.started_s is not None),
                live=int(live),
                cost_usd=record.cost_usd or 0.0,
                last_live=record if live else None,
            )
        )

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        lives = [record for record in (self.last_live, other.last_live) if record is not None]
        return Tally(
            through=max(self.through, other.through),
            started=self.started + other.started,
            live=self.live + other.live,
            cost_usd=self.cost_usd + other.cost_usd,
            last_live=max(lives, key=lambda record: record.job.slot_s, default=None),
        )


class _Chosen(msgspec.Struct):
    """What a decision was, without the rest."""

    action: int = 0


class Control(msgspec.Struct, frozen=True):
    """A person's wish: no new retrains while paused."""

    paused: bool
    reason: str


class State:
    """One cloud's documents."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    # --- decisions

    def record_decision(self, decision: Decision) -> Decision:
        """Write the decision unless its slot has one; returns the one that counts."""
        try:
            self._documents.put("decision", decision.decision_id, encode(decision), if_absent=True)
        except ConflictError:
            return self.decision(decision.decision_id) or decision
        return decision

    def decision(self, decision_id: str) -> Decision | None:
        """One decision."""
        found = self._documents.get("decision", decision_id)
        return decode(Decision, found.body) if found else None

    def decisions(self, since: str = "", limit: int = 1000) -> list[Decision]:
        """Decisions with id >= since, oldest first; ids of one service sort by time."""
        return [decode(Decision, body) for _, body in self._documents.query("decision", since=since, limit=limit)]

    def retrains(self, since: str) -> list[Decision]:
        """Of these decisions those to retrain: one in hundreds, so the others are not looked at any closer."""
        found = self._documents.query("decision", since=since)
        return [decode(Decision, body) for _, body in found if msgspec.json.decode(body, type=_Chosen).action]

    # --- jobs

    def claim(self, record: JobRecord) -> Held:
        """Write the first record of a job. Raises ConflictError when the job has one already."""
        return Held(record, self._documents.put("job", record.job.job_id, encode(record), if_absent=True))

    def job(self, job_id: str) -> Held | None:
        """The job's record."""
        found = self._documents.get("job", job_id)
        return Held(decode(JobRecord, found.body), found.etag) if found else None

    def update(self, held: Held, record: JobRecord) -> Held:
        """Replace the record as it was read. Raises ConflictError when somebody else changed it meanwhile."""
        return Held(record, self._documents.put("job", record.job.job_id, encode(record), if_etag=held.etag))

    def jobs(self, service: str, since: str = "") -> list[JobRecord]:
        """The service's jobs with id >= since, oldest first; ids sort by time."""
        found: dict[str, JobRecord] = {}
        position, prefix = max(since, f"{service}-"), f"{service}-"
        while True:
            page = self._documents.query("job", since=position, limit=_PAGE)
            # A service `qa-2` has ids of the same prefix as `qa`; everybody else's lie outside it.
            ours = [body for key, body in page if key.startswith(prefix)]
            records = (decode(JobRecord, body) for body in ours)
            found |= {record.job.job_id: record for record in records if record.job.service == service}
            if len(ours) < _PAGE:
                return list(found.values())
            position = page[-1][0]  # read again: a page starts at a key, not after it

    def tally(self, service: str) -> tuple[Tally, str | None]:
        """The older jobs added up, with the tag to replace that; an empty one and None before the first."""
        found = self._documents.get("tally", service)
        return (msgspec.json.decode(found.body, type=Tally), found.etag) if found else (Tally(), None)

    def put_tally(self, service: str, tally: Tally, *, if_etag: str | None) -> None:
        """Replace it as it was read (None: absent). Raises ConflictError."""
        body = msgspec.json.encode(tally)
        self._documents.put("tally", service, body, if_etag=if_etag, if_absent=if_etag is None)

    # --- lock

    def lock(self, service: str) -> tuple[Lock, str] | None:
        """Who holds the service's training lock, with the tag to take it over."""
        found = self._documents.get("lock", service)
        return (msgspec.json.decode(found.body, type=Lock), found.etag) if found else None

    def take_lock(self, service: str, lock: Lock, *, if_etag: str | None) -> None:
        """Take the lock if it is still as it was read (None: absent). Raises ConflictError."""
        body = msgspec.json.encode(lock)
        self._documents.put("lock", service, body, if_etag=if_etag, if_absent=if_etag is None)

    # --- routes

    def routes(self, service: str) -> RouteTable | None:
        """This cloud's copy of the route table."""
        found = self._documents.get("routes", service)
        return decode(RouteTable, found.body) if found else None

    def publish(self, table: RouteTable) -> bool:
        """Write the table unless this cloud has a newer one; False when somebody else wrote first."""
        found = self._documents.get("routes", table.service)
        if found is not None:
            held = decode(RouteTable, found.body)
            if (held.epoch, held.heartbeat_s) > (table.epoch, table.heartbeat_s):
                return False
        try:
            self._documents.put(
                "routes",
                table.service,
                encode(table),
                if_etag=found.etag if found else None,
                if_absent=found is None,
            )
        except ConflictError:
            return False
        return True

    # --- control

    def control(self, service: str) -> Control:
        """Whether the service is paused, and why."""
        found = self._documents.get("control", service)
        return msgspec.json.decode(found.body, type=Control) if found else Control(False, "")

    def set_control(self, service: str, control: Control) -> None:
        """Pause or resume."""
        self._documents.put("control", service, msgspec.json.encode(control))
