"""Apply: what a plan says, each step by itself and repeatable. What fails is kept with its reason; the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import msgspec

from functions.clouds import Deps
from functions.retraining.copying import bring
from functions.retraining.job_message import training_job
from functions.retraining.lifecycle import releases
from functions.routing.publish import changed_since
from functions.scheduling.plan import JobStep, Plan
from shared.contracts import (
    Cloud,
    Decision,
    JobRecord,
    JobStatus,
    RouteTable,
    TrainingJob,
)
from shared.errors import ConflictError, ModelError, NotFoundError, OpportuneError, RefusedError, UnknownVersionError
from shared.logs import about
from shared.records import Held, Unread

log = logging.getLogger("opportune.functions.apply")

_ACTIONS: Final = {JobStatus.ACCEPTED: "gate", JobStatus.REJECTED: "gate", JobStatus.LIVE: "route"}


class Applied(NamedTuple):
    """What was done."""

    decision: Decision | None  # the slot's, as it is recorded; None when it could be recorded nowhere
    moved: bool  # a job took a step, so another look may find the next one


def apply(deps: Deps, plan: Plan) -> Applied:
    """Do it. The order survives a crash between any two steps: what is said to be done is done before it is said."""
    moved = False
    accepted = list(plan.waiting)
    for step in plan.steps:
        written = _take(deps, step)
        moved |= written is not None and written.record.status is not step.held.record.status
        accepted += [written] if written and written.record.status is JobStatus.ACCEPTED else []
    decision = plan.settled
    if plan.decision is not None:
        decision = _settle(deps, plan.decision)
    for record in plan.voided:
        _void(deps, record)
    _send(deps, plan, decision)
    _publish(deps, plan, plan.heartbeat if decision is not None else plan.routes)
    _pass_old_jobs(deps, plan)
    # models are large: what takes long comes after what others wait for
    for held in accepted:
        moved |= _release(deps, plan, held)
    return Applied(decision, moved)


def _tried(what: str, call: Callable[[], object], **about_it: object) -> OpportuneError | None:
    """None when the call went well, else why not; logged."""
    try:
        call()
    except OpportuneError as exc:
        log.warning("%s: not done", what, extra={"action": what, "reason": str(exc), **about_it})
        return exc
    return None


# --- jobs


def _take(deps: Deps, taken: JobStep) -> Held | None:
    """Write what becomes of a job, after what has to be there before; None when that could not be done."""
    held, step, cloud = taken.held, taken.step, deps.clouds[taken.cloud]
    job_id = held.record.job.job_id
    if step.stop:
        _tried("stop", lambda: cloud.training.stop(job_id), job_id=job_id, cloud=taken.cloud)
    written = _write(deps, taken.cloud, held, step.record)
    if written is None:
        return None
    before = held.record.status
    for record in step.path:
        if record.status is not before:
            log.info(
                "job is %s",
                record.status.value,
                extra={
                    **about(record.job),
                    "action": _ACTIONS.get(record.status, "train"),
                    "status": record.status.value,
                    "model_version": record.model_version,
                    "reason": record.reason,
                },
            )
            before = record.status
    return written


def _write(deps: Deps, cloud: Cloud, held: Held, record: JobRecord) -> Held | None:
    """The record as it is now stored; None when it is not, or when somebody else was first."""
    if record == held.record:
        return held
    try:
        return deps.state(cloud).update(held, record)
    except ConflictError:
        return None  # another function took the step
    except OpportuneError as exc:
        extra = {**about(record.job), "action": "record", "cloud": cloud, "reason": str(exc)}
        log.warning("job not recorded", extra=extra)
        return None


def _release(deps: Deps, plan: Plan, held: Held) -> bool:
    """Bring the accepted version to the clouds that do not serve it yet, and have it served; whether any was asked.

    Its own cloud comes first. Each cloud's outcome is written at once: bringing the model to the next may take the rest
    of the run.
    """
    source = held.record.job.cloud
    asked_any = False
    for cloud in sorted(releases(held.record, plan.around), key=lambda name: name != source):
        record = _released(deps, plan.around.now_s, held.record, cloud)
        asked_any |= record.asked != held.record.asked
        written = _write(deps, source, held, record)
        if written is None or written.record.status is not JobStatus.ACCEPTED:
            return asked_any or written is not None
        held = written
    return asked_any


def _released(deps: Deps, now_s: float, record: JobRecord, cloud: Cloud) -> JobRecord:
    """The record after one cloud was brought the version and asked to serve it."""
    version = record.model_version
    assert version is not None, "an accepted job has a model version"
    waits = {name: why for name, why in record.waits.items() if name != cloud}
    try:
        if left := bring(deps, record, cloud):
            log.info("%s", left, extra={**about(record.job), "action": "copy", "cloud": cloud})
            return msgspec.structs.replace(record, waits={**waits, cloud: left})
        deps.clouds[cloud].host.deploy(version)
    except (ModelError, RefusedError) as exc:
        _not_released(record, cloud, exc)
        if isinstance(exc, ModelError) and not record.asked.keys() - {cloud}:
            words = f"an endpoint cannot load {version}: {exc}"
            return msgspec.structs.replace(record, status=JobStatus.FAILED, reason=words, waits={}, updated_s=now_s)
        # where another endpoint took it, the model is not what is wrong
        return msgspec.structs.replace(record, refused={**record.refused, cloud: str(exc)}, waits=waits)
    except OpportuneError as exc:
        _not_released(record, cloud, exc)
        return msgspec.structs.replace(record, waits={**waits, cloud: str(exc)})
    asked = {**record.asked, cloud: record.asked.get(cloud, 0) + 1}
    return msgspec.structs.replace(record, asked=asked, asked_s={**record.asked_s, cloud: now_s}, waits=waits)


def _not_released(record: JobRecord, cloud: Cloud, exc: OpportuneError) -> None:
    extra = {**about(record.job), "action": "deploy", "cloud": cloud, "reason": str(exc)}
    log.warning("not released yet", extra=extra)


# --- decision and messages


def _settle(deps: Deps, decision: Decision) -> Decision | None:
    """Settle the slot's decision in the first cloud that answers, then copy it to the others.

    Two schedulers in one slot get the same decision back, so they enqueue the same job. A newer program's decision is
    acted on by that program; this one does nothing in the slot.
    """
    settled: Decision | None = None
    home: Cloud | None = None
    for cloud in deps.settling():
        try:
            settled = deps.state(cloud).record_decision(decision)
        except UnknownVersionError as exc:
            log.error("a newer program decided this slot", extra={"action": "decide", "reason": str(exc)})
            return None
        except OpportuneError as exc:
            log.warning("decision not recorded", extra={"action": "decide", "cloud": cloud, "reason": str(exc)})
            continue
        home = cloud
        break
    if settled is None:
        return None
    for cloud in deps.clouds:
        if cloud != home:
            _tried("copy decision", partial(deps.state(cloud).record_decision, settled), cloud=cloud)
    log.info(
        "decided: %s",
        settled.reason,
        extra={
            **about(settled),
            "action": "decide",
            "chosen": settled.action.name.lower(),
            "wanted": settled.wanted.name.lower(),
            "policy": settled.policy,
            "conditions": settled.conditions,
        },
    )
    return settled


def _send(deps: Deps, plan: Plan, decision: Decision | None) -> None:
    """The slot's message, and those that may have been lost."""
    for job in plan.messages:
        _enqueue(deps, job, plan.around.now_s)
    for cloud, held in plan.resent:
        if _write(deps, cloud, held, msgspec.structs.replace(held.record, sent_s=plan.around.now_s)) is not None:
            _enqueue(deps, held.record.job, plan.around.now_s)
    if decision is None or decision.job_id is None:
        return
    chosen, known = decision.action.cloud, {record.job.job_id for record in plan.jobs}
    if chosen is None or chosen not in deps.clouds or decision.job_id in known:
        return
    parent = plan.parents[chosen]
    if isinstance(parent, Unread):
        extra = {**about(decision), "action": "enqueue", "cloud": chosen, "reason": parent.reason}
        log.warning("not enqueued yet: not known what the training starts from", extra=extra)
        return
    if plan.around.held is None:
        _enqueue(deps, training_job(deps.settings, decision, chosen, parent), plan.around.now_s)


def _enqueue(deps: Deps, job: TrainingJob, now_s: float) -> None:
    """Send the message. A queue that refuses for good ends the job at once, so that the other cloud is next."""
    failed = _tried("enqueue", lambda: deps.clouds[job.cloud].queue.enqueue(job), **about(job), cloud=job.cloud)
    if failed is None:
        log.info("enqueued a retrain on %s", job.cloud, extra={**about(job), "action": "enqueue", "cloud": job.cloud})
    elif isinstance(failed, RefusedError | NotFoundError):
        record = JobRecord(
            job=job,
            status=JobStatus.FAILED,
            updated_s=now_s,
            reason=f"its message cannot be sent: {failed}",
            cause="refused",
            cost_usd=0.0,
        )
        _tried("record a refused job", lambda: deps.state(job.cloud).claim(record), **about(job))


def _void(deps: Deps, record: JobRecord) -> None:
    """End a decided job that nobody began, so that it does not begin when the switch is turned back."""
    _tried("stop a decided job", lambda: deps.state(record.job.cloud).claim(record), **about(record.job))


# --- routes, totals


def _publish(deps: Deps, plan: Plan, table: RouteTable | None) -> None:
    if table is None:
        return
    for endpoint in table.endpoints:
        if not endpoint.healthy:  # an alarm of each cloud waits for these words (infra/)
            log.warning("a cloud is not healthy", extra={"action": "route", "cloud": endpoint.cloud})
    for cloud in deps.clouds:
        _tried("publish routes", partial(_put_routes, deps, plan, cloud, table), cloud=cloud)
    if changed_since(table, plan.last_routes):
        log.info(
            "routes changed",
            extra={
                "action": "route",
                "trace_id": table.trace_id,
                "epoch": table.epoch,
                "endpoints": [msgspec.to_builtins(endpoint) for endpoint in table.endpoints],
            },
        )


def _put_routes(deps: Deps, plan: Plan, cloud: Cloud, table: RouteTable) -> None:
    if cloud in plan.route_tags:
        deps.state(cloud).put_routes(table, if_etag=plan.route_tags[cloud])


def _pass_old_jobs(deps: Deps, plan: Plan) -> None:
    for cloud, (totals, etag) in plan.totals.items():
        service = deps.settings.service
        put = partial(deps.state(cloud).put_totals, service, totals, if_etag=etag)
        if _tried("add up old jobs", put, cloud=cloud) is None:
            log.info("added up old jobs", extra={"action": "tick", "cloud": cloud, "through": totals.through})
