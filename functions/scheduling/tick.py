"""The scheduled tick: lead or stand by, move open jobs along, observe, decide, record, enqueue."""

from __future__ import annotations

import logging
from typing import Final

from functions.clouds import Deps
from functions.retraining.history import Ledger, close_old_pages, open_ledger
from functions.retraining.lifecycle import advance
from functions.routing.publish import publish_routes
from functions.scheduling.cached_documents import recalling
from policy.decide import DecisionContext, decide
from policy.observation.live import REQUIRED, window_of
from shared.contracts import (
    CLOUDS,
    IN_FLIGHT,
    Cloud,
    Decision,
    JobRecord,
    JobStatus,
    MetricWindow,
    RouteTable,
    TrainingJob,
    job_id_for,
    new_trace_id,
    slot_of,
)
from shared.errors import MetricsError, UnavailableError
from shared.logs import about
from shared.ports import Served
from shared.records import State
from shared.settings import Settings

log = logging.getLogger("opportune.functions.tick")

#: how far back a tick looks for decisions whose job nobody claimed
UNCLAIMED_SLOTS: Final = 60


def tick(deps: Deps, now_s: float) -> Decision | None:
    """One slot of one service; the same slot again repeats nothing. None when the other cloud leads."""
    cfg = deps.settings
    if cfg.cloud != cfg.scheduler and not leads(cfg, State(deps.own.documents).routes(cfg.service), now_s):
        log.info("standing by", extra={"action": "tick", "scheduler": cfg.scheduler})
        return None
    slot_s = slot_of(now_s, cfg.slot_seconds)
    decision_id = f"decision-{job_id_for(cfg.service, slot_s)}"
    deps = recalling(deps, decision_id)
    ledger = open_ledger(deps)
    jobs = [_advanced(deps, record, now_s) for record in ledger.jobs()]
    decision = State(deps.own.documents).decision(decision_id)
    if decision is not None:
        publish_routes(deps, now_s, heartbeat=True)
    else:
        window, served = _observed(deps, now_s)
        publish_routes(deps, now_s, heartbeat=True, served=served)
        jobs += _unclaimed(deps, jobs, slot_s, now_s)
        decision = _record(deps, _decide(deps, window, tuple(jobs), slot_s, now_s))
    if decision.job_id and decision.job_id not in {record.job.job_id for record in jobs}:
        _enqueue(deps, decision)
    _push(deps, ledger, jobs, decision)
    close_old_pages(deps, ledger, now_s)
    return decision


def leads(cfg: Settings, table: RouteTable | None, now_s: float) -> bool:
    """Whether this cloud's scheduler acts: the active one always, the standby when the heartbeat is old.

    The standby goes on acting while its own heartbeat is the last one, and steps back at the active one's next.
    """
    if cfg.cloud == cfg.scheduler:
        return True
    if table is None:
        return False
    silence_s = now_s - table.heartbeat_s
    return table.scheduler == cfg.cloud or silence_s > cfg.standby_after_slots * cfg.slot_seconds


def training_job(cfg: Settings, decision: Decision, cloud: Cloud, parent_version: str) -> TrainingJob:
    """What a retrain decision asks for. The ceiling in dollars becomes time, which the training service enforces."""
    ceiling_s = cfg.cost_ceiling_usd / cfg.price_usd_per_hour(cloud) * 3600.0 / cfg.time_scale
    deadline_s = min(cfg.job_deadline_seconds, ceiling_s)
    job_id = decision.job_id or job_id_for(cfg.service, decision.slot_s)
    data_start_s = max(0.0, decision.slot_s - cfg.data_window_slots * cfg.slot_seconds)
    return TrainingJob(
        job_id=job_id,
        service=cfg.service,
        slot_s=decision.slot_s,
        cloud=cloud,
        trace_id=decision.trace_id,
        decision_id=decision.decision_id,
        parent_version=parent_version,
        data_start_s=data_start_s,
        data_end_s=decision.slot_s,
        hyperparameters={
            "job_id": job_id,
            "service": cfg.service,
            "trace_id": decision.trace_id,
            "parent_version": parent_version,
            "base_model": cfg.base_model,
            "cloud": cloud,
            "epochs": str(cfg.epochs),
            "learning_rate": str(cfg.learning_rate),
            "batch_size": str(cfg.batch_size),
            "max_seconds": str(deadline_s),
            "price_usd_per_hour": str(cfg.price_usd_per_hour(cloud)),
            "data_start_s": str(data_start_s),
            "data_end_s": str(decision.slot_s),
            **({"pushgateway_url": cfg.pushgateway_url} if cfg.pushgateway_url else {}),
        },
        cost_ceiling_usd=cfg.cost_ceiling_usd,
        deadline_s=deadline_s,
    )


def _advanced(deps: Deps, record: JobRecord, now_s: float) -> JobRecord:
    """The record after whatever step it could take; a cloud that does not answer leaves it as it is."""
    if record.status not in IN_FLIGHT:
        return record
    try:
        held = deps.state(record.job.cloud).job(record.job.job_id)
        return advance(deps, held, now_s) if held else record
    except UnavailableError as exc:
        log.warning("job waits", extra={**about(record.job), "action": "advance", "reason": str(exc)})
        return record


def _unclaimed(deps: Deps, jobs: list[JobRecord], slot_s: float, now_s: float) -> list[JobRecord]:
    """Jobs that earlier slots decided on and nobody claimed yet: in flight all the same.

    Their messages are sent again: the tick may have crashed between recording and sending, and a duplicate is
    harmless.
    """
    cfg = deps.settings
    known = {record.job.job_id for record in jobs}
    back_s = min(cfg.job_deadline_seconds, UNCLAIMED_SLOTS * cfg.slot_seconds)
    since = f"decision-{job_id_for(cfg.service, slot_s - back_s)}"
    found = []
    for decision in State(deps.own.documents).retrains(since):
        cloud = decision.action.cloud
        if decision.service != cfg.service or decision.slot_s >= slot_s or not cloud or decision.job_id in known:
            continue
        job = _enqueue(deps, decision)
        if job is not None and now_s <= job.slot_s + job.deadline_s:
            found.append(JobRecord(job=job, status=JobStatus.CLAIMED, updated_s=decision.slot_s))
    return found


def _observed(deps: Deps, now_s: float) -> tuple[MetricWindow | MetricsError, dict[Cloud, Served]]:
    """What the policy looks at, and what routers start from; metrics that fail are not asked twice.

    Where one cloud serves alone, its latency is the service's, and nobody asks again.
    """
    cfg = deps.settings
    try:
        window = deps.metrics().window(*window_of(cfg, now_s), cfg.slot_seconds, REQUIRED)
    except MetricsError as exc:
        return exc, {}
    if len(deps.clouds) == 1:
        (cloud,) = deps.clouds
        latency = window.series["latency"].values
        return window, {cloud: Served(latency[-1] if latency else None, None)}
    try:
        return window, deps.metrics().served(now_s, cfg.slot_seconds)
    except MetricsError as exc:
        log.warning("routes without metrics", extra={"action": "route", "reason": str(exc)})
        return window, {}


def _decide(
    deps: Deps, window: MetricWindow | MetricsError, jobs: tuple[JobRecord, ...], slot_s: float, now_s: float
) -> Decision:
    cfg = deps.settings
    control = State(deps.own.documents).control(cfg.service)
    context = DecisionContext(
        settings=cfg,
        now_s=now_s,
        slot_s=slot_s,
        trace_id=new_trace_id(),
        jobs=jobs,
        unavailable=_unavailable(deps),
        paused=control.reason or "by a person" if control.paused else None,
    )
    return decide(window, context, deps.policy())


def _unavailable(deps: Deps) -> dict[Cloud, str]:
    """Clouds that cannot train now, and why."""
    why: dict[Cloud, str] = {c: "it does not answer" if c in deps.clouds else "not configured" for c in CLOUDS}
    for attempt in deps.reachable("see who can train"):
        with attempt as services:
            deps.state(services.cloud).control(deps.settings.service)
            del why[services.cloud]
    return why


def _record(deps: Deps, decision: Decision) -> Decision:
    """Settle the slot's decision in the active scheduler's cloud, then copy it to the others.

    Two schedulers in one slot get the same decision back, so they enqueue the same job.
    """
    cfg = deps.settings
    home = deps.home_now
    try:
        settled = deps.state(home).record_decision(decision)
    except UnavailableError:
        home = cfg.cloud
        settled = deps.state(home).record_decision(decision)
    for attempt in deps.reachable("copy decision"):
        with attempt as cloud:
            if cloud.cloud != home:
                deps.state(cloud.cloud).record_decision(settled)
    log.info(
        "decided: %s",
        settled.reason,
        extra={
            **about(settled),
            "action": "decide",
            "chosen": settled.action.name.lower(),
            "wanted": settled.wanted.name.lower(),
            "policy": settled.policy,
        },
    )
    return settled


def _enqueue(deps: Deps, decision: Decision) -> TrainingJob | None:
    cloud = decision.action.cloud
    if cloud is None or cloud not in deps.clouds:
        return None
    services = deps.clouds[cloud]
    try:
        job = training_job(deps.settings, decision, cloud, services.host.serving_version() or "base")
        services.queue.enqueue(job)
    except UnavailableError as exc:
        log.warning("not enqueued yet", extra={**about(decision), "action": "enqueue", "reason": str(exc)})
        return None
    log.info("enqueued a retrain on %s", cloud, extra={**about(decision), "action": "enqueue", "cloud": cloud})
    return job


def _push(deps: Deps, ledger: Ledger, jobs: list[JobRecord], decision: Decision) -> None:
    """Counters as absolute values from the records: pushing twice changes nothing."""
    if deps.notifier is None:
        return
    cfg = deps.settings
    values = {
        "llm_jobs_in_flight": float(sum(r.status in IN_FLIGHT for r in jobs)),
        "llm_decision_action": float(decision.action),
        "llm_decision_slot_timestamp_seconds": decision.slot_s,
    }
    if ledger.complete:  # a counter that fell because a cloud is silent would count everything again afterwards
        total, static = ledger.totals(jobs), cfg.policy == "static"
        values |= {
            "llm_rl_redeploy_total": 0 if static else total.live,
            "llm_static_retrain_total": total.started if static else 0,
            "llm_retrain_cost_usd_total": total.cost_usd,
        }
    try:
        for name, value in values.items():
            deps.notifier.push(name, value, {"service": cfg.service})
    except UnavailableError as exc:
        log.warning("metrics not pushed", extra={"action": "tick", "reason": str(exc)})
