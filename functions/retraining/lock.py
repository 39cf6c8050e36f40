"""One job of a service trains at a time, on whichever cloud."""

from __future__ import annotations

import logging

from functions.clouds import Deps
from shared.contracts import IN_FLIGHT, Cloud, TrainingJob
from shared.errors import ConflictError, ContractError, OpportuneError, UnavailableError
from shared.records import Lock, Unreadable
from shared.state import State

log = logging.getLogger("opportune.functions.lock")


def take_lock(deps: Deps, job: TrainingJob, now_s: float) -> str | None:
    """Make `job` the one that may train. Returns the job that already may, or None on success.

    The lock lies with the active scheduler's cloud. When that cloud does not answer, the own table decides: a service
    must be able to retrain while one cloud is down.
    """
    try:
        return _take(deps, deps.state(deps.home), job, now_s)
    except OpportuneError as exc:
        if deps.home == deps.settings.cloud:
            raise
        log.warning("the lock is taken here", extra={"action": "train", "cloud": deps.home, "reason": str(exc)})
        return _take(deps, deps.state(deps.settings.cloud), job, now_s)


def _take(deps: Deps, state: State, job: TrainingJob, now_s: float) -> str | None:
    wanted = Lock(job.job_id, job.cloud, now_s + job.deadline_s)
    for _ in range(3):
        found = state.lock(job.service)
        if found is not None:
            holder = _holder(deps, found[0], job, now_s)
            if holder is not None:
                return holder
        try:
            state.take_lock(job.service, wanted, if_etag=found[1] if found else None)
        except ConflictError:
            continue  # somebody moved between our read and our write, or our own answer was lost: look again
        return None
    raise UnavailableError("training lock", f"of service {job.service} is contended; try again")


def _holder(deps: Deps, lock: Lock | Unreadable, job: TrainingJob, now_s: float) -> str | None:
    """The job that holds the lock and still trains; None when the lock may be taken."""
    if isinstance(lock, Unreadable):
        # whoever wrote it has a job in flight, or nobody has: the records say which
        log.error("a lock cannot be read", extra={"action": "train", "reason": str(lock)})
        return next((other for cloud in deps.clouds for other in _in_flight(deps, cloud, job)), None)
    if lock.job_id == job.job_id or lock.cloud not in deps.clouds:
        return None
    try:
        held = deps.state(lock.cloud).job(lock.job_id)
    except ContractError as exc:  # a newer program's job: as long as it may run, it does
        log.error("the lock's job cannot be read", extra={"action": "train", "reason": str(exc)})
        return lock.job_id if now_s < lock.expires_s else None
    if held is None:  # its record may not be there yet
        return lock.job_id if now_s < lock.expires_s else None
    return lock.job_id if held.record.status in IN_FLIGHT else None


def _in_flight(deps: Deps, cloud: Cloud, job: TrainingJob) -> list[str]:
    try:
        records = deps.state(cloud).jobs(job.service).records
    except OpportuneError:
        return []
    return [r.job.job_id for r in records if r.status in IN_FLIGHT and r.job.job_id != job.job_id]
