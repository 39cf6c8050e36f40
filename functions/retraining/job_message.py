"""The message that asks for a retrain: made from a decision and the settings, and checked against both. Pure."""

from __future__ import annotations

from shared.addresses import without_users
from shared.contracts import Cloud, Decision, JobRecord, JobStatus, TrainingJob, job_id_for
from shared.settings import Settings


def training_job(cfg: Settings, decision: Decision, cloud: Cloud, parent_version: str) -> TrainingJob:
    """What a retrain decision asks for. The ceiling in dollars becomes time, which the training service enforces."""
    ceiling_s = cfg.cost_ceiling_usd / cfg.list_price_usd_per_hour(cloud) * 3600.0 / cfg.time_scale
    deadline_s = min(cfg.job_deadline_seconds, ceiling_s)
    job_id = decision.job_id or job_id_for(decision.service, decision.slot_s)
    data_start_s = max(0.0, decision.slot_s - cfg.data_window_slots * cfg.slot_seconds)
    return TrainingJob(
        job_id=job_id,
        service=decision.service,
        slot_s=decision.slot_s,
        cloud=cloud,
        trace_id=decision.trace_id,
        decision_id=decision.decision_id,
        parent_version=parent_version,
        data_start_s=data_start_s,
        data_end_s=decision.slot_s,
        hyperparameters={
            "job_id": job_id,
            "service": decision.service,
            "trace_id": decision.trace_id,
            "parent_version": parent_version,
            "base_model": cfg.base_model,
            "cloud": cloud,
            "epochs": str(cfg.epochs),
            "learning_rate": str(cfg.learning_rate),
            "batch_size": str(cfg.batch_size),
            "max_seconds": str(deadline_s),
            "price_usd_per_hour": str(cfg.list_price_usd_per_hour(cloud)),
            "data_start_s": str(data_start_s),
            "data_end_s": str(decision.slot_s),
            **({"pushgateway_url": cfg.pushgateway_url} if cfg.pushgateway_url else {}),
        },
        cost_ceiling_usd=cfg.cost_ceiling_usd,
        deadline_s=deadline_s,
    )


def difference(cfg: Settings, decision: Decision, job: TrainingJob) -> str | None:
    """What the message says otherwise than the recorded decision and the settings here; None when nothing.

    A queue can be written to by whoever holds its key; what is spent and trained on is not theirs to say.
    """
    if decision.action.cloud != job.cloud or decision.job_id != job.job_id or decision.service != job.service:
        asked = f"{decision.job_id or 'no job'} of {decision.service} on {decision.action.cloud or 'no cloud'}"
        return f"decision {decision.decision_id} asks for {asked}, not for {job.job_id} of {job.service} on {job.cloud}"
    expected = training_job(cfg, decision, job.cloud, job.parent_version)
    for name in job.__struct_fields__:
        given, wanted = getattr(job, name), getattr(expected, name)
        if given != wanted:
            if isinstance(given, dict):
                name = next(key for key in sorted({*given, *wanted}) if given.get(key) != wanted.get(key))
                given, wanted = given.get(name), wanted.get(name)
            given, wanted = (without_users(repr(value))[:80] for value in (given, wanted))
            return f"{name} is {given}; by the decision and the settings here it is {wanted}"
    return None


def stopped_record(job: TrainingJob, reason: str, now_s: float) -> JobRecord:
    """The record of a job that ended before it began."""
    return JobRecord(job=job, status=JobStatus.STOPPED, updated_s=now_s, reason=reason, cost_usd=0.0)
