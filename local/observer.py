"""Watches a run from outside: decisions over the front doors, job records in both clouds' tables."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import urllib3

from shared.contracts import Cloud, Decision, JobRecord
from shared.errors import UnavailableError

#: a door that hangs must not hold up the others
TIMEOUT_S: Final = 3.0


class Observer:
    """Polls in a thread of its own and keeps what it saw. A poll that fails is repeated at the next one.

    `jobs` reads every job record there is. Use as a context manager; leaving it polls one last time.
    """

    def __init__(
        self, doors: Mapping[Cloud, str], jobs: Callable[[], list[JobRecord]], every_s: float, service: str
    ) -> None:
        self._doors = doors
        self._read_jobs = jobs
        self._every_s = every_s
        self._service = service
        self._http = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._decisions: dict[str, Decision] = {}
        self._jobs: dict[str, JobRecord] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.problem = ""

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.poll()
        self._http.clear()

    def decisions(self) -> list[Decision]:
        """Every decision seen, oldest first."""
        with self._lock:
            return sorted(self._decisions.values(), key=lambda d: d.slot_s)

    def jobs(self) -> list[JobRecord]:
        """The latest record of every job, oldest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda j: j.job.slot_s)

    def poll(self) -> None:
        """Look once; a door or table that does not answer is noted in `problem`."""
        self.problem = ""
        since = max(self._decisions, default="")
        for cloud in self._doors:
            for decision in self._fetch(cloud, since):
                with self._lock:
                    self._decisions[decision.decision_id] = decision
        try:
            jobs = self._read_jobs()
        except UnavailableError as exc:
            self.problem = str(exc)
            return
        with self._lock:
            self._jobs |= {record.job.job_id: record for record in jobs}

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.poll()

    def _fetch(self, cloud: Cloud, since: str) -> list[Decision]:
        try:
            reply = self._http.request("GET", f"{self._doors[cloud].rstrip('/')}/decisions", fields={"since": since})
            body = json.loads(reply.data)
            if reply.status != 200:
                self.problem = f"{cloud}/decisions: HTTP {reply.status}: {body}"[:200]
                return []
            found = msgspec.convert(body["decisions"], list[Decision])
        except (urllib3.exceptions.HTTPError, ValueError, KeyError) as exc:
            self.problem = f"{cloud}/decisions: {type(exc).__name__}: {exc}"[:200]
            return []
        return [decision for decision in found if decision.service == self._service]
