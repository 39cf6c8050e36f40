"""A training job's way from claimed to live, one idempotent step at a time.

    CLAIMED -> TRAINING -> SUCCEEDED -> ACCEPTED -> LIVE
       |          |            |           `-> FAILED     the endpoints could not load it in time
       |          |            `-> REJECTED               the gate refused it
       |          `-> FAILED | STOPPED                    the training service said so
       `-> FAILED                                         never reached the training service

Completion events push a job along; every tick looks too, so that a lost event costs one slot, not a job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from functions.clouds import Deps
from functions.retraining.gate import judge, read_manifest
from functions.routing.publish import publish_routes
from shared.contracts import IN_FLIGHT, Cloud, JobRecord, JobStatus
from shared.errors import ConflictError, ContractError, ModelError, NotFoundError
from shared.logs import about
from shared.ports import CloudServices, TrainingStatus
from shared.records import Held

log = logging.getLogger("opportune.functions.jobs")


def model_key(model_version: str) -> str:
    """Where a version's artifact lies, in every cloud's object store."""
    return f"models/{model_version}/model.tar.gz"


def training_finished(deps: Deps, job_id: str, now_s: float) -> JobRecord | None:
    """A completion event names a job of this cloud. Repeated events and unknown jobs change nothing."""
    held = deps.state(deps.settings.cloud).job(job_id)
    if held is None:
        log.info("not a job of ours", extra={"action": "finish", "job_id": job_id})
        return None
    return advance(deps, held, now_s)


def advance(deps: Deps, held: Held, now_s: float) -> JobRecord:
    """Take every step that can be taken now. Losing a race to another function is fine: it took the step."""
    cloud = held.record.job.cloud
    state = deps.state(cloud)
    while held.record.status in IN_FLIGHT:
        following = _STEPS[held.record.status](deps, cloud, held.record, now_s)
        if following is held.record:
            break
        try:
            held = state.update(held, msgspec.structs.replace(following, updated_s=now_s))
        except ConflictError:
            newer = state.job(held.record.job.job_id)
            return newer.record if newer else held.record
        record = held.record
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
        if record.status is JobStatus.LIVE:
            publish_routes(deps, now_s, trace_id=record.job.trace_id)
    return held.record


def _overdue(record: JobRecord, since_s: float | None, now_s: float, patience: float) -> bool:
    return now_s - (record.job.slot_s if since_s is None else since_s) > patience * record.job.deadline_s


def _claimed(deps: Deps, cloud: Cloud, record: JobRecord, now_s: float) -> JobRecord:
    """The starter may have crashed on either side of the start; its redelivered message repairs the other case."""
    if deps.clouds[cloud].training.status(record.job.job_id) is not None:
        return msgspec.structs.replace(record, status=JobStatus.TRAINING, started_s=now_s)
    if _overdue(record, None, now_s, 1.0):
        return _ended(
            record, JobStatus.FAILED, f"never reached the training service within {record.job.deadline_s:g} s"
        )
    return record


def _training(deps: Deps, cloud: Cloud, record: JobRecord, now_s: float) -> JobRecord:
    told = deps.clouds[cloud].training.status(record.job.job_id)
    if told is None:
        return _ended(record, JobStatus.FAILED, "the training service does not know the job any more")
    if told.state == "running":
        # The training service enforces the deadline; this is for one that does not.
        if _overdue(record, record.started_s, now_s, 2.0):
            deps.clouds[cloud].training.stop(record.job.job_id)
            return _timed(deps, record, told, now_s, JobStatus.STOPPED, "ran twice as long as its deadline")
        return record
    status = {"succeeded": JobStatus.SUCCEEDED, "failed": JobStatus.FAILED, "stopped": JobStatus.STOPPED}[told.state]
    return _timed(deps, record, told, now_s, status, "" if status is JobStatus.SUCCEEDED else told.reason)


def _timed(
    deps: Deps, record: JobRecord, told: TrainingStatus, now_s: float, status: JobStatus, reason: str
) -> JobRecord:
    """The record with times and cost: what the service billed, else what we saw."""
    started_s = told.started_s if told.started_s is not None else record.started_s
    finished_s = told.finished_s if told.finished_s is not None else now_s
    hours = max(0.0, finished_s - (started_s if started_s is not None else finished_s)) / 3600.0
    return msgspec.structs.replace(
        record,
        status=status,
        started_s=started_s,
        finished_s=finished_s,
        cost_usd=hours * deps.settings.time_scale * deps.settings.price_usd_per_hour(record.job.cloud),
        reason=reason,
    )


def _succeeded(deps: Deps, cloud: Cloud, record: JobRecord, now_s: float) -> JobRecord:
    """Check the artifact, keep it, let the gate speak."""
    services = deps.clouds[cloud]
    try:
        artifact = services.training.artifact(record.job.job_id)
        manifest = read_manifest(artifact)
    except (ModelError, ContractError, NotFoundError) as exc:
        return _ended(record, JobStatus.FAILED, f"the model artifact is unusable: {exc}")
    if manifest.job_id != record.job.job_id:
        return _ended(record, JobStatus.FAILED, f"the model artifact is of another job, {manifest.job_id}")
    services.objects.put(model_key(manifest.model_version), artifact)
    verdict = judge(
        manifest,
        services.host.serving_version(),
        margin=deps.settings.gate_margin,
        min_examples=deps.settings.gate_min_examples,
    )
    return msgspec.structs.replace(
        record,
        status=JobStatus.ACCEPTED if verdict.accepted else JobStatus.REJECTED,
        model_version=manifest.model_version,
        reason=verdict.reason,
    )


def _accepted(deps: Deps, cloud: Cloud, record: JobRecord, now_s: float) -> JobRecord:
    """Ask every endpoint to serve the version until all do."""
    version = record.model_version
    assert version is not None, "an accepted job has a model version"
    serving: list[Cloud] = []
    try:
        for attempt in deps.reachable("deploy"):
            with attempt as services:
                if services.host.serving_version() != version:
                    _copy_model(deps.clouds[cloud], services, version)
                    services.host.deploy(version, services.objects.uri(model_key(version)))
                if services.host.serving_version() == version:
                    serving.append(services.cloud)
    except ModelError as exc:
        return _ended(record, JobStatus.FAILED, f"an endpoint cannot load {version}: {exc}")
    if len(serving) == len(deps.clouds):
        return msgspec.structs.replace(record, status=JobStatus.LIVE)
    if not _overdue(record, record.finished_s, now_s, 1.0):
        return record
    missing = " and ".join(other for other in deps.clouds if other not in serving)
    late = f"{missing} did not serve {version} within {record.job.deadline_s:g} s"
    if not serving:
        return _ended(record, JobStatus.FAILED, late)
    return _ended(record, JobStatus.LIVE, f"{record.reason}; {late}")


def _copy_model(source: CloudServices, target: CloudServices, version: str) -> None:
    """Bring the artifact to the target's object store, once."""
    key = model_key(version)
    if key not in target.objects.list(key):
        target.objects.put(key, source.objects.get(key))


def _ended(record: JobRecord, status: JobStatus, reason: str) -> JobRecord:
    return msgspec.structs.replace(record, status=status, reason=reason)


_STEPS: Final[dict[JobStatus, Callable[[Deps, Cloud, JobRecord, float], JobRecord]]] = {
    JobStatus.CLAIMED: _claimed,
    JobStatus.TRAINING: _training,
    JobStatus.SUCCEEDED: _succeeded,
    JobStatus.ACCEPTED: _accepted,
}
_ACTIONS: Final = {JobStatus.ACCEPTED: "gate", JobStatus.REJECTED: "gate", JobStatus.LIVE: "route"}
