"""Typed documents over a DocumentStore: a service's state in one cloud."""

from __future__ import annotations

from typing import Any, Final

from shared.contracts import Decision, JobRecord, RouteTable, decode, encode
from shared.errors import ConflictError, ContractError
from shared.ports import DocumentStore
from shared.records import Control, Held, Jobs, JobTotals, Lock, ServiceDocuments, Unreadable, decoded
from shared.values import Document

#: jobs read at once
_PAGE: Final = 200


class State:
    """One cloud's documents."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def service(self, service: str, decision_id: str) -> ServiceDocuments:
        """Routes, totals, operator switch and one decision, together."""
        kinds: dict[str, tuple[str, Any]] = {
            "routes": (service, RouteTable),
            "tally": (service, JobTotals),
            "control": (service, Control),
            "decision": (decision_id, Decision),
        }
        found = self._documents.get_many([(kind, key) for kind, (key, _) in kinds.items()])
        read = {
            kind: decoded(kind, key, found[kind, key], of) if (kind, key) in found else None
            for kind, (key, of) in kinds.items()
        }
        etags = {kind: document.etag for (kind, _), document in found.items()}
        return ServiceDocuments(read["routes"], read["tally"], read["control"], read["decision"], etags)

    # --- decisions

    def record_decision(self, decision: Decision) -> Decision:
        """Write the decision unless its slot has one; returns the one that counts.

        Raises ContractError when the slot's decision cannot be read, UnknownVersionError when it is of a newer program.
        """
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
        """Decisions with id >= since, oldest first; ids of one service sort by time. Unreadable ones are left out."""
        return self._decisions(since, limit, retrains_only=False)

    def retrains(self, since: str) -> list[Decision]:
        """Of these decisions those to retrain: one in hundreds, so the others are not looked at any closer."""
        return self._decisions(since, 1000, retrains_only=True)

    def _decisions(self, since: str, limit: int, *, retrains_only: bool) -> list[Decision]:
        found = []
        for key, body in self._documents.query("decision", since=since, limit=limit):
            if retrains_only and b'"action":0' in body:
                continue
            decision = decoded("decision", key, Document(body, ""), Decision)
            if isinstance(decision, Decision) and (decision.action or not retrains_only):
                found.append(decision)
        return found

    # --- jobs

    def claim(self, record: JobRecord) -> Held:
        """Write the first record of a job. Raises ConflictError when the job has one already."""
        return Held(record, self._documents.put("job", record.job.job_id, encode(record), if_absent=True))

    def job(self, job_id: str) -> Held | None:
        """The job's record. Raises ContractError when it cannot be read."""
        found = self._documents.get("job", job_id)
        return Held(decode(JobRecord, found.body), found.etag) if found else None

    def update(self, held: Held, record: JobRecord) -> Held:
        """Replace the record as it was read.

        An answer may be lost on its way back and the write repeated by a library, so a condition that fails is looked
        into before it counts as somebody else's: what we wanted to write may stand there.

        Raises ConflictError when somebody else changed it meanwhile.
        """
        body = encode(record)
        try:
            return Held(record, self._documents.put("job", record.job.job_id, body, if_etag=held.etag))
        except ConflictError:
            found = self._documents.get("job", record.job.job_id)
            if found is not None and found.body == body:
                return Held(record, found.etag)
            raise

    def jobs(self, service: str, since: str = "") -> Jobs:
        """The service's jobs with id >= since, oldest first; ids sort by time."""
        found: dict[str, JobRecord] = {}
        unreadable: dict[str, Unreadable] = {}
        position, prefix = max(since, f"{service}-"), f"{service}-"
        while True:
            page = self._documents.query("job", since=position, limit=_PAGE)
            # A service `qa-2` has ids of the same prefix as `qa`; everybody else's lie outside it.
            ours = [(key, body) for key, body in page if key.startswith(prefix)]
            for key, body in ours:
                record = decoded("job", key, Document(body, ""), JobRecord)
                if isinstance(record, Unreadable):
                    unreadable[key] = record
                elif record.job.service == service:
                    found[record.job.job_id] = record
            if len(ours) < _PAGE:
                return Jobs(list(found.values()), list(unreadable.values()))
            position = page[-1][0]  # read again: a page starts at a key, not after it

    def put_totals(self, service: str, totals: JobTotals, *, if_etag: str | None) -> None:
        """Replace it as it was read (None: absent). Raises ConflictError."""
        body = encode(totals)
        self._documents.put("tally", service, body, if_etag=if_etag, if_absent=if_etag is None)

    # --- lock

    def lock(self, service: str) -> tuple[Lock | Unreadable, str] | None:
        """Who holds the service's training lock, with the tag to take it over."""
        found = self._documents.get("lock", service)
        return (decoded("lock", service, found, Lock), found.etag) if found else None

    def take_lock(self, service: str, lock: Lock, *, if_etag: str | None) -> None:
        """Take the lock if it is still as it was read (None: absent). Raises ConflictError."""
        body = encode(lock)
        self._documents.put("lock", service, body, if_etag=if_etag, if_absent=if_etag is None)

    # --- routes

    def routes(self, service: str) -> RouteTable | None:
        """This cloud's copy of the route table. Raises ContractError when it cannot be read."""
        found = self._documents.get("routes", service)
        return decode(RouteTable, found.body) if found else None

    def put_routes(self, table: RouteTable, *, if_etag: str | None) -> bool:
        """Replace this cloud's copy as it was read (None: absent); False when somebody else wrote first."""
        try:
            self._documents.put("routes", table.service, encode(table), if_etag=if_etag, if_absent=if_etag is None)
        except ConflictError:
            return False
        return True

    # --- control

    def control(self, service: str) -> Control:
        """The operator switch. Raises ContractError when it cannot be read."""
        found = self._documents.get("control", service)
        if found is None:
            return Control(False, "")
        control = decoded("control", service, found, Control)
        if isinstance(control, Unreadable):
            raise ContractError(str(control))
        return control

    def set_control(self, service: str, control: Control) -> None:
        """Pause or resume."""
        self._documents.put("control", service, encode(control))
