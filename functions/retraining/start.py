"""Starts the training that a queue message asks for: exactly once, however often the message comes."""

from __future__ import annotations

import enum
import logging

import msgspec

from functions.clouds import Deps
from functions.retraining.job_message import difference, stopped_record
from functions.retraining.lock import take_lock
from functions.retraining.operator_switch import held_by, paused_by
from functions.retraining.snapshot import Pairs, merged, pairs_of
from shared.contracts import Cloud, Decision, JobRecord, JobStatus, TrainingJob, decode
from shared.errors import (
    CapacityError,
    ConflictError,
    ContractError,
    ModelError,
    NotFoundError,
    OpportuneError,
    RefusedError,
    UnavailableError,
)
from shared.logs import about
from shared.records import Control, Held, JobTotals, Unread
from shared.releases import model_folder

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
    deps = deps.guarded(deps.settings.tick_deadline_seconds)
    try:
        job = decode(TrainingJob, raw)
        if job.cloud != deps.settings.cloud:
            raise ContractError(f"TrainingJob: cloud is {job.cloud}, this is the queue of {deps.settings.cloud}")
        _check(deps, job)
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
    try:
        return _start(deps, held, now_s)
    except (RefusedError, NotFoundError, ModelError) as exc:
        return _settle(deps, held, JobStatus.FAILED, now_s, str(exc), cause="refused")
    except CapacityError as exc:
        return _settle(deps, held, JobStatus.FAILED, now_s, str(exc), cause="capacity")
    except OpportuneError as exc:
        _note(deps, held, str(exc))
        raise UnavailableError("training start", str(exc)) from exc


def _check(deps: Deps, job: TrainingJob) -> None:
    """Hold the message against the recorded decision and the settings here.

    Raises:
        ContractError: there is no such decision, or it says otherwise.
        UnavailableError: a cloud that may have the decision does not answer.
    """
    unknown = ""
    for cloud in deps.settling():
        try:
            decision = deps.state(cloud).decision(job.decision_id)
        except OpportuneError as exc:
            unknown = unknown or str(exc)
            continue
        if decision is not None:
            return _agree(deps, decision, job)
    if unknown:
        raise UnavailableError("recorded decision", unknown)
    raise ContractError(f"TrainingJob: no decision {job.decision_id} is recorded")


def _agree(deps: Deps, decision: Decision, job: TrainingJob) -> None:
    if why := difference(deps.settings, decision, job):
        raise ContractError(f"TrainingJob: {why}")


def _claim(deps: Deps, job: TrainingJob, now_s: float) -> Held | None:
    """The job's record, ours to start (CLAIMED) or refused (STOPPED); None when somebody else has it."""
    state = deps.state(deps.settings.cloud)
    try:
        held = state.job(job.job_id)
    except ContractError as exc:  # a newer program's: it is on its way
        log.error("a job's record cannot be read", extra={**about(job), "action": "train", "reason": str(exc)})
        return None
    if held is not None and held.record.status is not JobStatus.CLAIMED:
        return None
    refusal = _refusal(deps, job, now_s, claimed=held is not None)
    if held is not None:
        # Still CLAIMED: whoever claimed it may have crashed. Every step of a start may be repeated.
        if not refusal:
            return held
        stopped = msgspec.structs.replace(
            held.record, status=JobStatus.STOPPED, reason=refusal, updated_s=now_s, cost_usd=0.0
        )
        try:
            if deps.own.training.status(job.job_id) is not None:
                deps.own.training.stop(job.job_id)  # whoever claimed it had come so far
            return state.update(held, stopped)
        except ConflictError:
            return None
    record = JobRecord(job=job, status=JobStatus.CLAIMED, updated_s=now_s)
    if refusal:
        record = stopped_record(job, refusal, now_s)
        log.warning("refused a job", extra={**about(job), "action": "train", "reason": refusal})
    try:
        return state.claim(record)
    except ConflictError:
        # Somebody else's, or our own write whose answer was lost: what stands there says which.
        held = state.job(job.job_id)
        return held if held is not None and held.record.status is JobStatus.CLAIMED and not refusal else None


def _refusal(deps: Deps, job: TrainingJob, now_s: float, *, claimed: bool) -> str:
    """Why the job may not start, or "". One that is claimed has the lock and was in time."""
    controls: dict[Cloud, Control | Unread] = {}
    for cloud in deps.clouds:
        try:
            controls[cloud] = deps.state(cloud).control(job.service)
        except OpportuneError as exc:
            controls[cloud] = Unread(str(exc))
            extra = {**about(job), "action": "train", "cloud": cloud, "reason": str(exc)}
            log.warning("the operator switch of a cloud cannot be read", extra=extra)
    if held := held_by(deps.settings, paused_by(controls)):
        return held
    if any(job.job_id in control.stopped_jobs for control in controls.values() if isinstance(control, Control)):
        return "stopped by a person"
    if claimed:
        return ""
    if now_s > job.slot_s + job.deadline_s:
        return f"waited in the queue for longer than its deadline of {job.deadline_s:g} s"
    holder = take_lock(deps, job, now_s)
    return f"job {holder} of the same service is in flight" if holder else ""


def _start(deps: Deps, held: Held, now_s: float) -> Outcome:
    job, objects = held.record.job, deps.own.objects
    data = merged(_pairs(deps, job))
    if data.skipped:
        log.warning(
            "skipped damaged feedback",
            extra={**about(job), "action": "train", "lines": len(data.skipped), "first": data.skipped[0]},
        )
    seen_s = max((record.job.data_end_s for record in _live_jobs(deps, job)), default=0.0)
    new = sum(received_s >= seen_s for received_s in data.received_s)
    if new < deps.settings.min_new_pairs:
        reason = f"only {new} labelled pairs the serving model has not seen; {deps.settings.min_new_pairs} are needed"
        return _settle(deps, held, JobStatus.STOPPED, now_s, reason)
    folder = f"jobs/{job.job_id}/data/"
    objects.put(f"{folder}train.jsonl", data.body)
    parent = None if job.parent_version == "base" else objects.uri(model_folder(job.parent_version))
    deps.own.training.start(job, objects.uri(folder), parent)
    return _settle(deps, held, JobStatus.TRAINING, now_s, "", pairs=len(data.received_s))


def _live_jobs(deps: Deps, job: TrainingJob) -> list[JobRecord]:
    """The jobs whose models went live, of the clouds that answer."""
    found: list[JobRecord] = []
    for attempt in deps.reachable("list jobs"):
        with attempt as cloud:
            state = deps.state(cloud.cloud)
            totals = state.service(job.service, job.decision_id).totals
            through = totals.through if isinstance(totals, JobTotals) else ""
            found += [r for r in state.jobs(job.service, since=through).records if r.status is JobStatus.LIVE]
            if isinstance(totals, JobTotals) and totals.last_live is not None:
                found.append(totals.last_live)
    return found


def _settle(
    deps: Deps, held: Held, status: JobStatus, now_s: float, reason: str, *, pairs: int = 0, cause: str = ""
) -> Outcome:
    changes: dict[str, object] = {"status": status, "updated_s": now_s, "reason": reason, "cause": cause, "waits": {}}
    changes |= {"started_s": now_s} if status is JobStatus.TRAINING else {"cost_usd": 0.0}
    record = msgspec.structs.replace(held.record, **changes)
    state = deps.state(deps.settings.cloud)
    try:
        state.update(held, record)
    except ConflictError:
        newer = state.job(record.job.job_id)
        if newer is not None and newer.record.status in (JobStatus.STOPPED, JobStatus.FAILED):
            deps.own.training.stop(record.job.job_id)  # ended by a person, or given up, while this was starting it
        return Outcome.DUPLICATE  # a second delivery of the message was faster; it did the same
    told = {**about(record.job), "action": "train", "cloud": record.job.cloud, "pairs": pairs, "reason": reason}
    log.info("training started" if status is JobStatus.TRAINING else "training refused", extra=told)
    return Outcome.STARTED if status is JobStatus.TRAINING else Outcome.REFUSED


def _note(deps: Deps, held: Held, why: str) -> None:
    """Keep why the start did not succeed yet, for the record that ends it if it never does."""
    noted = msgspec.structs.replace(held.record, waits={"training service": why[:500]})
    try:
        deps.state(deps.settings.cloud).update(held, noted)
    except OpportuneError as exc:
        log.warning("not noted", extra={**about(held.record.job), "action": "train", "reason": str(exc)})


def _pairs(deps: Deps, job: TrainingJob) -> list[Pairs]:
    """Both clouds' labelled pairs, the other one's only if it answers.

    Raises:
        UnavailableError: this cloud's store does not answer.
    """
    found = [pairs_of(deps.own.objects, job.data_start_s, job.data_end_s)]
    for cloud in deps.clouds:
        if cloud != deps.settings.cloud:
            try:
                found.append(pairs_of(deps.clouds[cloud].objects, job.data_start_s, job.data_end_s))
            except OpportuneError as exc:
                extra = {**about(job), "action": "train", "cloud": cloud, "reason": str(exc)}
                log.warning("trained without the labels of a cloud", extra=extra)
    return found
