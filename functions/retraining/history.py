"""The jobs of a service: the recent ones one by one, older ones as totals, so that a tick's reading stays bounded.

A cloud's tally counts every job up to one id; the jobs after it are listed. It moves on over jobs that are over and
older than anybody looks back. It only depends on which jobs it passed, so writing it twice changes nothing.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from functions.clouds import Deps
from policy.guardrails import longest_cooldown_slots
from shared.contracts import IN_FLIGHT, Cloud, JobRecord, job_id_for
from shared.errors import ConflictError
from shared.records import Tally
from shared.settings import Settings

log = logging.getLogger("opportune.functions.ledger")

#: the budget is of a day, people ask about yesterday
SHORTEST_LOOK_BACK_S: Final = 2 * 86_400.0


class Page(NamedTuple):
    """One cloud's jobs."""

    cloud: Cloud
    tally: Tally
    etag: str | None  # of the tally; None before the first
    recent: list[JobRecord]  # after the tally, oldest first


class Ledger(NamedTuple):
    """The pages of the clouds that answer."""

    pages: tuple[Page, ...]
    complete: bool  # every cloud answered

    def jobs(self) -> list[JobRecord]:
        """The recent jobs and, of the older ones, the last that went live; oldest first."""
        found = [record for page in self.pages for record in page.recent]
        found += [page.tally.last_live for page in self.pages if page.tally.last_live is not None]
        return sorted(found, key=lambda record: record.job.slot_s)

    def totals(self, jobs: list[JobRecord]) -> Tally:
        """All jobs ever, with `jobs` as the newest state of those that this ledger lists."""
        total = Tally()
        for page in self.pages:
            total = total.plus(page.tally)
        passed = {page.tally.last_live.job.job_id for page in self.pages if page.tally.last_live is not None}
        for record in jobs:
            if record.job.job_id not in passed:
                total = total.counting(record)
        return total


def look_back_s(cfg: Settings) -> float:
    """For how long a job that is over still matters to a decision, or might still be claimed."""
    slots = longest_cooldown_slots(cfg) + 2 * cfg.window_slots + cfg.static_every_slots
    return max(SHORTEST_LOOK_BACK_S, slots * cfg.slot_seconds + 4.0 * cfg.job_deadline_seconds)


def open_ledger(deps: Deps) -> Ledger:
    """Read it; a cloud that does not answer is left out."""
    pages = []
    for attempt in deps.reachable("list jobs"):
        with attempt as cloud:
            state, service = deps.state(cloud.cloud), deps.settings.service
            tally, etag = state.tally(service)
            recent = [r for r in state.jobs(service, since=tally.through) if r.job.job_id > tally.through]
            pages.append(Page(cloud.cloud, tally, etag, recent))
    return Ledger(tuple(pages), complete=len(pages) == len(deps.clouds))


def close_old_pages(deps: Deps, ledger: Ledger, now_s: float) -> None:
    """Move each tally on. Whoever writes first wins; the other one's reading is as true."""
    cfg = deps.settings
    before = job_id_for(cfg.service, now_s - look_back_s(cfg))
    for page in ledger.pages:
        tally = page.tally
        for record in page.recent:
            if record.job.job_id >= before or record.status in IN_FLIGHT:
                break
            tally = tally.counting(record)
        if tally == page.tally:
            continue
        for attempt in deps.reachable("add up old jobs"):
            with attempt as cloud:
                if cloud.cloud == page.cloud:
                    _write(deps, page, tally)


def _write(deps: Deps, page: Page, tally: Tally) -> None:
    try:
        deps.state(page.cloud).put_tally(deps.settings.service, tally, if_etag=page.etag)
    except ConflictError:
        return
    log.info("added up old jobs", extra={"action": "tick", "cloud": page.cloud, "through": tally.through})
