"""What one slot looks at: everything read once, per cloud, with the reason where something could not be read.

Plain values: a plan is made from a view without asking anybody anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.contracts import Cloud, Decision, JobRecord, MetricWindow, ModelManifest, RouteTable
from shared.errors import MetricsError
from shared.records import Control, Held, JobTotals, Unread, Unreadable
from shared.settings import Settings
from shared.values import HostState, Served, TrainingStatus


class Unusable(NamedTuple):
    """A finished job's model that nobody can use, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job in flight, what its training service says of it, and what its model says of itself once it is there."""

    held: Held
    status: TrainingStatus | Unread | None  # None: the service does not know the job, or was not asked
    model: ModelManifest | Unusable | Unread | None = None  # None: not asked for yet


@dataclass(frozen=True, slots=True)
class CloudView:
    """One cloud as this slot sees it."""

    cloud: Cloud
    documents: Unread | None = None  # why its documents could not be read at all
    routes: RouteTable | Unreadable | None = None
    totals: JobTotals | Unreadable | None = None
    control: Control | Unreadable | None = None
    decision: Decision | Unreadable | None = None
    etags: Mapping[str, str] = field(default_factory=dict)
    #: jobs after the totals, oldest first
    recent: tuple[JobRecord, ...] | Unread = ()
    #: those of them in flight, each looked into
    open_jobs: tuple[JobView, ...] = ()
    #: retrains that earlier slots decided on
    retrains: tuple[Decision, ...] | Unread = ()
    host: HostState | Unread = field(default_factory=lambda: Unread("not asked"))
    #: documents that were skipped
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """Everything a slot is planned from."""

    settings: Settings
    now_s: float
    slot_s: float
    #: for a decision that may be made
    trace_id: str
    #: for a route table that may change without a job
    routes_trace_id: str
    clouds: Mapping[Cloud, CloudView]
    window: MetricWindow | MetricsError
    served: Mapping[Cloud, Served]

    def conditions(self) -> dict[str, str]:
        """What could not be read -> why."""
        found: dict[str, str] = {}
        for cloud, seen in self.clouds.items():
            if seen.documents is not None:
                found[f"{cloud} documents"] = seen.documents.reason
            if isinstance(seen.recent, Unread) and seen.documents is None:
                found[f"{cloud} jobs"] = seen.recent.reason
            if isinstance(seen.retrains, Unread) and seen.documents is None:
                found[f"{cloud} decisions"] = seen.retrains.reason
            if isinstance(seen.host, Unread):
                found[f"{cloud} endpoint"] = seen.host.reason
            elif not seen.host.healthy:
                found[f"{cloud} endpoint"] = seen.host.reason or "not healthy"
            for job in seen.open_jobs:
                name = f"{cloud} job {job.held.record.job.job_id}"
                if isinstance(job.status, Unread):
                    found[name] = job.status.reason
                if isinstance(job.model, Unread):
                    found[f"{name} artifact"] = job.model.reason
            for number, words in enumerate(seen.skipped, start=1):
                found[f"{cloud} skipped {number}"] = words
        return found
