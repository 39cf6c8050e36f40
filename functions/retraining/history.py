"""The jobs of a service: the recent ones one by one, older ones as totals, so that a tick's reading stays bounded.

A cloud's totals count every job up to one id; the jobs after it are listed. They move on over jobs that are over and
older than anybody looks back. They only depend on which jobs they passed, so writing them twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from functions.scheduling.view import CloudView
from policy.guardrails import longest_cooldown_slots
from shared.contracts import IN_FLIGHT, Cloud, JobRecord, job_id_for
from shared.records import JobTotals, Unread, Unreadable
from shared.settings import Settings

#: the budget is of a day, people ask about yesterday
SHORTEST_LOOK_BACK_S: Final = 2 * 86_400.0


class CloudJobs(NamedTuple):
    """One cloud's jobs."""

    cloud: Cloud
    totals: JobTotals
    etag: str | None  # of the totals; None before the first
    recent: tuple[JobRecord, ...]  # after the totals, oldest first
    complete: bool  # nothing of it was unreadable

    def total(self) -> JobTotals:
        """All its jobs ever."""
        total = self.totals
        for record in self.recent:
            total = total.counting(record)
        return total


class JobHistory(NamedTuple):
    """The jobs of the clouds that answer."""

    clouds: tuple[CloudJobs, ...]
    complete: bool  # every cloud answered, and nothing was unreadable

    def jobs(self) -> list[JobRecord]:
        """The recent jobs and, of the older ones, the last that went live; oldest first."""
        found = [record for of in self.clouds for record in of.recent]
        found += [of.totals.last_live for of in self.clouds if of.totals.last_live is not None]
        return sorted(found, key=lambda record: record.job.slot_s)


def look_back_s(cfg: Settings) -> float:
    """For how long a job that is over still matters to a decision, or might still be claimed."""
    slots = longest_cooldown_slots(cfg) + 2 * cfg.window_slots + cfg.static_every_slots
    return max(SHORTEST_LOOK_BACK_S, slots * cfg.slot_seconds + 4.0 * cfg.job_deadline_seconds)


def job_history(clouds: Mapping[Cloud, CloudView]) -> JobHistory:
    """The history in a view; totals that cannot be read count as none, and as incomplete."""
    found, complete = [], True
    for cloud, seen in clouds.items():
        complete &= not seen.skipped and not isinstance(seen.recent, Unread)
        if isinstance(seen.recent, Unread):
            continue
        totals = JobTotals() if seen.totals is None or isinstance(seen.totals, Unreadable) else seen.totals
        found.append(CloudJobs(cloud, totals, seen.etags.get("tally"), seen.recent, not seen.skipped))
    return JobHistory(tuple(found), complete)


def moved_on(
    cfg: Settings, clouds: Mapping[Cloud, CloudView], now_s: float
) -> dict[Cloud, tuple[JobTotals, str | None]]:
    """The totals that have jobs to pass, with the tag to replace them by. Whoever writes first wins; both are true."""
    before = job_id_for(cfg.service, now_s - look_back_s(cfg))
    found: dict[Cloud, tuple[JobTotals, str | None]] = {}
    for of in job_history(clouds).clouds:
        if clouds[of.cloud].skipped:
            continue  # a record that cannot be read must not be passed, nor totals be begun anew
        totals = of.totals
        for record in of.recent:
            if record.job.job_id >= before or record.status in IN_FLIGHT:
                break
            totals = totals.counting(record)
        if totals != of.totals:
            found[of.cloud] = totals, of.etag
    return found
