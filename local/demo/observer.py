"""Polls the decisions and jobs of a run from outside, as an operator would: over the front doors."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
import urllib3

from shared.contracts import Cloud, Decision, JobRecord

#: a door that hangs must not hold up the others
TIMEOUT_S: Final = 3.0

T = TypeVar("T")


class Observer:
    """Polls in a thread of its own and keeps what it saw. A poll that fails is repeated at the next one.

    Use as a context manager; leaving it polls one last time.
    """

    def __init__(self, doors: Mapping[Cloud, str], every_s: float) -> None:
        self._doors = doors
        self._every_s = every_s
        self._http = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._decisions: dict[str, Decision] = {}
        self._jobs: dict[str, JobRecord] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        #: what did not work at the last poll, in words; empty when all did
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
        """Look once. Each cloud is asked for its own table: both record decisions, each its own jobs."""
        problems: list[str] = []
        since = max((d.slot_s for d in self._decisions.values()), default=0.0)
        for cloud in self._doors:
            decisions = self._fetch(cloud, f"decisions?since={since:.0f}", "decisions", Decision, problems)
            jobs = self._fetch(cloud, "jobs", "jobs", JobRecord, problems)
            with self._lock:
                self._decisions |= {decision.decision_id: decision for decision in decisions}
                self._jobs |= {record.job.job_id: record for record in jobs}
        self.problem = "; ".join(problems)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.poll()

    def _fetch(self, cloud: Cloud, path: str, key: str, kind: type[T], problems: list[str]) -> list[T]:
        try:
            reply = self._http.request("GET", f"{self._doors[cloud].rstrip('/')}/{path}")
            body = json.loads(reply.data)
            if reply.status == 200:
                return msgspec.convert(body[key], list[kind])  # type: ignore[valid-type]
            problems.append(f"{cloud}/{path}: HTTP {reply.status}: {body}"[:200])
        except (urllib3.exceptions.HTTPError, ValueError, KeyError) as exc:
            problems.append(f"{cloud}/{path}: {type(exc).__name__}: {exc}"[:200])
        return []
