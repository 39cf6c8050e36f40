"""Plan: from what was read, everything a slot does. Pure; imports no port and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from functions.retraining.history import JobHistory, job_history, moved_on
from functions.retraining.job_message import stopped_record, training_job
from functions.retraining.lifecycle import Step, Surroundings, next_step, serving_version
from functions.retraining.operator_switch import held_by, paused_by
from functions.routing.publish import last_table, next_table
from functions.scheduling.view import CloudView, View
from policy.decide import DecisionContext, decide
from policy.policies import Policy
from shared.contracts import (
    CLOUDS,
    IN_FLIGHT,
    Cloud,
    Decision,
    JobRecord,
    JobStatus,
    RouteTable,
    TrainingJob,
    job_id_for,
)
from shared.records import Control, Held, JobTotals, Unread, Unreadable

#: a claimed job that no training service knows gets its message again after so many slots: the first may be poisoned
RESEND_SLOTS: Final = 3.0
#: of what a decision says could not be read or done
_MOST_CONDITIONS, _LONGEST_CONDITION = 20, 300


@dataclass(frozen=True, slots=True)
class JobStep:
    """What becomes of a job in flight."""

    cloud: Cloud
    held: Held
    step: Step


@dataclass(frozen=True, slots=True)
class Plan:
    """What a slot does, in the order in which `apply` does it."""

    around: Surroundings
    #: jobs in flight that move, and those that are accepted and wait for endpoints
    steps: tuple[JobStep, ...]
    waiting: tuple[Held, ...]
    #: decisions of earlier slots that the operator switch ended before anybody began: written as stopped jobs
    voided: tuple[JobRecord, ...]
    #: to record, or None when the slot has one (`settled`) or this run decides nothing
    decision: Decision | None
    settled: Decision | None
    #: messages to send again: of earlier decisions nobody claimed, and of claimed jobs nobody started
    messages: tuple[TrainingJob, ...]
    resent: tuple[tuple[Cloud, Held], ...]
    #: the version that a retrain on each cloud starts from
    parents: Mapping[Cloud, str | Unread]
    #: the table with the heartbeat, for when the decision is recorded, and without
    heartbeat: RouteTable | None
    routes: RouteTable | None
    last_routes: RouteTable | None
    #: what a conditional write of each copy needs (None: there is none), without those that a newer program wrote
    route_tags: Mapping[Cloud, str | None]
    #: totals that have old jobs to pass
    totals: Mapping[Cloud, tuple[JobTotals, str | None]]
    #: every job as it is after the steps
    jobs: tuple[JobRecord, ...] = ()


def plan_slot(view: View, policy: Policy | None) -> Plan:
    """Everything the slot does; without a policy nothing is decided."""
    cfg = view.settings
    history = job_history(view.clouds)
    around = _surroundings(view, history)
    steps = tuple(
        JobStep(cloud, job.held, step)
        for cloud, seen in view.clouds.items()
        for job in seen.open_jobs
        if (step := next_step(job, around)) is not None
    )
    moved = {step.held.record.job.job_id: step.step.record for step in steps}
    jobs = [moved.get(record.job.job_id, record) for record in history.jobs()]
    parents = {cloud: _parent(view, around, cloud) for cloud in view.clouds}
    unclaimed = _unclaimed(view, {record.job.job_id for record in jobs}) if policy is not None else []
    messages, voided = [], []
    for earlier, cloud in unclaimed:
        parent = parents[cloud]
        job = training_job(cfg, earlier, cloud, parent if isinstance(parent, str) else "base")
        if around.held is not None:
            voided.append(stopped_record(job, around.held, view.now_s))
            continue
        if view.now_s <= job.slot_s + job.deadline_s:
            jobs.append(JobRecord(job=job, status=JobStatus.CLAIMED, updated_s=earlier.slot_s))
            if isinstance(parent, str) and _due(earlier, view):
                messages.append(job)
    settled = _settled(view) if policy is not None else None
    decision = None
    if policy is not None and settled is None and not _newer_decides(view):
        decision = _decided(view, policy, tuple(jobs))
    decision_id = f"decision-{job_id_for(cfg.service, view.slot_s)}"
    trace_id = _trace_of_release(jobs) or view.routes_trace_id
    tables = {
        decided: next_table(cfg, view.clouds, view.served, view.now_s, trace_id=trace_id, decided=decided)
        for decided in (decision_id if policy is not None else None, None)
    }
    return Plan(
        around=around,
        steps=steps,
        waiting=tuple(
            job.held
            for seen in view.clouds.values()
            for job in seen.open_jobs
            if job.held.record.status is JobStatus.ACCEPTED and job.held.record.job.job_id not in moved
        ),
        voided=tuple(voided),
        decision=decision,
        settled=settled,
        messages=tuple(messages),
        resent=tuple(_resent(view, moved, around)) if policy is not None else (),
        parents=parents,
        heartbeat=tables.get(decision_id),
        routes=tables[None],
        last_routes=last_table(view.clouds),
        route_tags={
            cloud: seen.etags.get("routes")
            for cloud, seen in view.clouds.items()
            if not (isinstance(seen.routes, Unreadable) and seen.routes.newer)
        },
        totals=moved_on(cfg, view.clouds, view.now_s),
        jobs=tuple(jobs),
    )


def _controls(view: View) -> dict[Cloud, Control | Unreadable | Unread | None]:
    return {cloud: seen.documents or seen.control for cloud, seen in view.clouds.items()}


def _surroundings(view: View, history: JobHistory) -> Surroundings:
    controls = [control for control in _controls(view).values() if isinstance(control, Control)]
    return Surroundings(
        settings=view.settings,
        now_s=view.now_s,
        hosts={cloud: seen.host for cloud, seen in view.clouds.items()},
        served_before=_served_before(view.clouds, history),
        held=held_by(view.settings, paused_by(_controls(view))),
        switched_s=max((control.changed_s for control in controls), default=0.0),
        stopped=frozenset(job_id for control in controls for job_id in control.stopped_jobs),
    )


def _served_before(clouds: Mapping[Cloud, CloudView], history: JobHistory) -> frozenset[Cloud]:
    """The clouds whose endpoint was ever published; all of them once any model of ours went live."""
    if any(record.status is JobStatus.LIVE for record in history.jobs()):
        return frozenset(clouds)
    table = last_table(clouds)
    return frozenset(endpoint.cloud for endpoint in table.endpoints) if table else frozenset()


def _parent(view: View, around: Surroundings, cloud: Cloud) -> str | Unread:
    """The version to train from: what serves, what served when it was last known, the base where nothing ever did."""
    serving = serving_version(cloud, around)
    if not isinstance(serving, Unread):
        return serving or "base"
    table = last_table(view.clouds)
    known = [e.model_version for e in table.endpoints if e.cloud == cloud] if table else []
    return known[0] if known else serving


def _unclaimed(view: View, known: set[str]) -> list[tuple[Decision, Cloud]]:
    """Retrains that earlier slots decided on and that have no job record yet: in flight all the same.

    Their messages are sent again: the tick may have crashed between recording and sending, and a duplicate is
    harmless.
    """
    found: dict[str, tuple[Decision, Cloud]] = {}
    for seen in view.clouds.values():
        for decision in seen.retrains if not isinstance(seen.retrains, Unread) else ():
            cloud, job_id = decision.action.cloud, decision.job_id
            if decision.service != view.settings.service or decision.slot_s >= view.slot_s:
                continue
            # whether a cloud that cannot be read knows the job, nobody can say: it is asked when it answers again
            if cloud is None or job_id is None or job_id in known or cloud not in view.clouds:
                continue
            if not isinstance(view.clouds[cloud].recent, Unread):
                found[job_id] = decision, cloud
    return list(found.values())


def _due(earlier: Decision, view: View) -> bool:
    """Whether a decision's message is sent again in this slot: after 1, 2, 4, 8, ... slots, as most are only slow."""
    slots = round((view.slot_s - earlier.slot_s) / view.settings.slot_seconds)
    return slots & (slots - 1) == 0


def _resent(view: View, moved: Mapping[str, JobRecord], around: Surroundings) -> list[tuple[Cloud, Held]]:
    """Claimed jobs whose training service does not know them although their message had the time."""
    if around.held is not None:
        return []
    wait_s = RESEND_SLOTS * view.settings.slot_seconds
    return [
        (cloud, job.held)
        for cloud, seen in view.clouds.items()
        for job in seen.open_jobs
        if job.held.record.status is JobStatus.CLAIMED
        and job.held.record.job.job_id not in moved
        and job.status is None
        and view.now_s - (job.held.record.sent_s or job.held.record.updated_s) >= wait_s
    ]


def _settled(view: View) -> Decision | None:
    """The decision that the slot has already, from whichever cloud has it."""
    found = [seen.decision for seen in view.clouds.values() if isinstance(seen.decision, Decision)]
    own = view.clouds[view.settings.cloud].decision
    return own if isinstance(own, Decision) else found[0] if found else None


def _newer_decides(view: View) -> bool:
    """Whether a newer program has decided the slot, in words this one does not know; then that one acts on it."""
    found = [seen.decision for seen in view.clouds.values()]
    return any(isinstance(decision, Unreadable) and decision.newer for decision in found)


def _decided(view: View, policy: Policy, jobs: tuple[JobRecord, ...]) -> Decision:
    """What the policy and the guardrails make of the slot, with what could not be read beside it."""
    cannot_train = unavailable(view, jobs)
    context = DecisionContext(
        settings=view.settings,
        now_s=view.now_s,
        slot_s=view.slot_s,
        trace_id=view.trace_id,
        jobs=jobs,
        unavailable=cannot_train,
        paused=paused_by(_controls(view)),
    )
    found = view.conditions() | {f"{c} training": why for c, why in cannot_train.items() if c in view.clouds}
    conditions = {name: why[:_LONGEST_CONDITION] for name, why in list(found.items())[:_MOST_CONDITIONS]}
    return msgspec.structs.replace(decide(view.window, context, policy), conditions=conditions)


def unavailable(view: View, jobs: tuple[JobRecord, ...]) -> dict[Cloud, str]:
    """Clouds that cannot train now, and why: not there, not answering, or refusing the last job they were given."""
    found: dict[Cloud, str] = {}
    for cloud in CLOUDS:
        seen = view.clouds.get(cloud)
        if seen is None:
            found[cloud] = "not configured"
        elif seen.documents is not None:
            found[cloud] = f"it does not answer: {seen.documents.reason}"
        else:
            ended = [r for r in jobs if r.job.cloud == cloud and r.status not in IN_FLIGHT]
            last = max(ended, key=lambda record: record.updated_s, default=None)
            if last is not None and last.cause and view.now_s - last.updated_s < view.settings.job_deadline_seconds:
                found[cloud] = f"job {last.job.job_id} ended there: {last.reason}"
    return found


def _trace_of_release(jobs: list[JobRecord]) -> str | None:
    """The trace of the newest job whose model the endpoints are taking over or have just taken."""
    moving = [record for record in jobs if record.status in (JobStatus.ACCEPTED, JobStatus.LIVE)]
    return moving[-1].job.trace_id if moving else None
