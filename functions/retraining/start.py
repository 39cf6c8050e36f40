"""Starts the training that a queue message asks for: exactly once, however often the message comes."""

from __future__ import annotations

import enum
import logging

import msgspec

from functions.clouds import Deps
from functions.retraining import snapshot as feedback
from functions.retraining.history import open_ledger
from functions.retraining.lifecycle import model_key
from shared.contracts import IN_FLIGHT, JobRecord, JobStatus, TrainingJob, decode
from shared.errors import ConflictError, ContractError, UnavailableError
from shared.logs import about
from shared.ports import ObjectStore
from shared.records import Held, Lock, State

log = logging.getLogger("opportune.functions.training")


class Outcome(enum.StrEnum):
    """What became of a message."""

    STARTED = "started"
    DUPLICATE = "duplicate"  # the job is on its way or over; nothing to do
    REFUSED = "refused"  # recorded with its reason
    DEAD_LETTERED = "dead-lettered"  # kept, with its reason, for a person


def start_training(deps: Deps, raw: str, now_s: float) -> Outcome:
    """Handle one message of this cloud's retrain queue.

    Raises UnavailableError when a cloud does not answer: the queue redelivers the message, and every step up to
    there is repeated without harm.
    """
    try:
        job = decode(TrainingJob, raw)
        if job.cloud != deps.settings.cloud:
            raise ContractError(f"TrainingJob: cloud is {job.cloud}, this is the queue of {deps.settings.cloud}")
    except ContractError as exc:
        deps.own.queue.dead_letter(raw, str(exc))
        log.error("dead-lettered a message", extra={"action": "enqueue", "reason": str(exc)})
        return Outcome.DEAD_LETTERED
    held = _claim(deps, job, now_s)
    if held is None:
        log.info("duplicate message", extra={**about(job), "action": "train"})
        return Outcome.DUPLICATE
    if held.record.status is JobStatus.STOPPED:
        return Outcome.REFUSED
    return _start(deps, held, now_s)


def _claim(deps: Deps, job: TrainingJob, now_s: float) -> Held | None:
    """The job's record, ours to start (CLAIMED) or refused (STOPPED); None when somebody else has it."""
    state = State(deps.own.documents)
    held = state.job(job.job_id)
    if held is not None:
        # Still CLAIMED: whoever claimed it may have crashed. Every step of a start may be repeated.
        return held if held.record.status is JobStatus.CLAIMED else None
    refusal = ""
    if now_s > job.slot_s + job.deadline_s:
        refusal = f"waited in the queue for longer than its deadline of {job.deadline_s:g} s"
    else:
        holder = take_lock(deps, job, now_s)
        if holder is not None:
            refusal = f"job {holder} of the same service is in flight"
    status = JobStatus.STOPPED if refusal else JobStatus.CLAIMED
    try:
        held = state.claim(JobRecord(job=job, status=status, updated_s=now_s, reason=refusal))
    except ConflictError:
        return None
    if refusal:
        log.warning("refused a job", extra={**about(job), "action": "train", "reason": refusal})
    return held


def take_lock(deps: Deps, job: TrainingJob, now_s: float) -> str | None:
    """Make `job` the one that may train. Returns the job that already may, or None on success.

    The lock lies with the active scheduler's cloud. When that cloud does not answer, the own table decides: a
    service must be able to retrain while one cloud is down.
    """
    home, own = deps.at_home()
    try:
        return _take_lock(deps, home, job, now_s)
    except UnavailableError:
        return _take_lock(deps, own, job, now_s)


def _take_lock(deps: Deps, state: State, job: TrainingJob, now_s: float) -> str | None:
    wanted = Lock(job.job_id, job.cloud, now_s + job.deadline_s)
    for _ in range(3):
        found = state.lock(job.service)
        if found is not None and found[0].job_id != job.job_id and _holds(deps, found[0], now_s):
            return found[0].job_id
        try:
            state.take_lock(job.service, wanted, if_etag=found[1] if found else None)
        except ConflictError:
            continue  # somebody moved between our read and our write: look again
        return None
    raise UnavailableError("training lock", f"of service {job.service} is contended; try again")


def _holds(deps: Deps, lock: Lock, now_s: float) -> bool:
    """Whether the lock's job still trains; its record may not be there yet."""
    if lock.cloud not in deps.clouds:
        return False
    held = deps.state(lock.cloud).job(lock.job_id)
    return now_s < lock.expires_s if held is None else held.record.status in IN_FLIGHT


def _start(deps: Deps, held: Held, now_s: float) -> Outcome:
    job, objects, state = held.record.job, deps.own.objects, State(deps.own.documents)
    data = feedback.snapshot(_stores(deps), job.data_start_s, job.data_end_s)
    if data.skipped:
        log.warning(
            "skipped damaged feedback",
            extra={**about(job), "action": "train", "lines": len(data.skipped), "first": data.skipped[0]},
        )
    live = [record for record in open_ledger(deps).jobs() if record.status is JobStatus.LIVE]
    seen_s = max((record.job.data_end_s for record in live), default=0.0)
    new = sum(received_s >= seen_s for received_s in data.received_s)
    if new < deps.settings.min_new_pairs:
        reason = f"only {new} labelled pairs the serving model has not seen; {deps.settings.min_new_pairs} are needed"
        return _settle(state, held, JobStatus.STOPPED, now_s, reason)
    folder = f"jobs/{job.job_id}/data/"
    objects.put(f"{folder}train.jsonl", data.body)
    parent = None
    if job.parent_version != "base":
        parent = objects.uri(model_key(job.parent_version).rpartition("/")[0] + "/")
    deps.own.training.start(job, objects.uri(folder), parent)
    return _settle(state, held, JobStatus.TRAINING, now_s, "", pairs=len(data.received_s))


def _settle(state: State, held: Held, status: JobStatus, now_s: float, reason: str, *, pairs: int = 0) -> Outcome:
    record = msgspec.structs.replace(held.record, status=status, updated_s=now_s, reason=reason)
    if status is JobStatus.TRAINING:
        record = msgspec.structs.replace(record, started_s=now_s)
    try:
        state.update(held, record)
    except ConflictError:
        return Outcome.DUPLICATE  # a second delivery of the message was faster; it did the same
    told = {**about(record.job), "action": "train", "cloud": record.job.cloud, "pairs": pairs, "reason": reason}
    log.info("training started" if status is JobStatus.TRAINING else "training refused", extra=told)
    return Outcome.STARTED if status is JobStatus.TRAINING else Outcome.REFUSED


def _stores(deps: Deps) -> list[ObjectStore]:
    """Both clouds' stores, the other one only if it answers."""
    stores: list[ObjectStore] = []
    for attempt in deps.reachable("read feedback"):
        with attempt as cloud:
            next(iter(cloud.objects.list(feedback.PREFIX)), None)
            stores.append(cloud.objects)
    return stores
