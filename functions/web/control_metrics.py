"""`GET /metrics` of the HTTP function: what the control plane did and does, from the records, as absolute values.

Scraping it twice, or both clouds' functions, changes nothing: they tell the same, and a query takes their `max`.
A counter whose records cannot all be read is left out rather than told too low: one that fell would count everything
again afterwards.

| metric                              | type    | meaning                                           | labels        |
|-------------------------------------|---------|---------------------------------------------------|---------------|
| llm_retrain_total                   | counter | jobs that ended                                   | cloud, status |
| llm_retrain_duration_seconds        | summary | their time on a machine                           | cloud         |
| llm_retrain_cost_usd_total          | counter | what they cost                                    | cloud         |
| llm_rl_redeploy_total               | counter | models gone live, unless the policy is `static`   |               |
| llm_static_retrain_total            | counter | retrains begun, where the policy is `static`      |               |
| llm_jobs_in_flight                  | gauge   | jobs between claim and live                       | cloud         |
| llm_retrain_overdue_seconds         | gauge   | how far the oldest of them is beyond its deadline | cloud         |
| llm_retrain_budget_spent_usd        | gauge   | spent today (UTC), estimates included             |               |
| llm_retrain_budget_limit_usd        | gauge   | a day's budget                                    |               |
| llm_decision_action                 | gauge   | the newest decision: 0 hold, 1 AWS, 2 Azure       |               |
| llm_decision_slot_timestamp_seconds | gauge   | its slot                                          |               |
| llm_decisions_recent                | gauge   | decisions of the last DECISION_SLOTS slots        | action        |
| llm_retrain_queue_depth             | gauge   | jobs that wait, about                             | cloud         |
| llm_dead_letters                    | gauge   | messages that nobody could handle, about          | cloud         |
| llm_paused                          | gauge   | 1 while an operator's switch holds retrains       |               |
| llm_mode                            | gauge   | 1                                                 | mode          |
| llm_route_healthy                   | gauge   | 1 where routers send requests                     | cloud         |
| llm_release_revision                | gauge   | of the release document                           | cloud         |
| llm_control_plane_part_up           | gauge   | 0 where something could not be read               | cloud, part   |
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from functions.clouds import Deps
from functions.retraining.history import JobHistory, job_history
from functions.retraining.operator_switch import paused_by
from functions.routing.publish import last_table
from functions.scheduling.view import CloudView
from functions.web.exposition import Family, page
from policy.guardrails import Facts
from shared.contracts import IN_FLIGHT, Action, Cloud, Decision, JobRecord, JobStatus, Release, decode, job_id_for
from shared.errors import NotFoundError, OpportuneError
from shared.records import JobTotals, Unread, Unreadable
from shared.releases import release_key
from shared.settings import Settings

log = logging.getLogger("opportune.functions.metrics")

T = TypeVar("T")

#: wall time for all that is read; below Prometheus' default scrape time-out of 10 s
SECONDS: Final = 8.0
_ENDS: Final = tuple(status.value for status in JobStatus if status not in IN_FLIGHT)
#: how far back decisions are counted by action
DECISION_SLOTS: Final = 60


@dataclass(slots=True)
class Told:
    """What one cloud's records say; a part that could not be read is in `down`, with the reason."""

    view: CloudView
    decisions: list[Decision] = field(default_factory=list)
    queue: int | None = None
    dead_letters: int | None = None
    release: Release | None = None
    down: dict[str, str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)

    def read(self, part: str, ask: Callable[[], T]) -> T | None:
        """What is asked for; None where it cannot be had."""
        self.parts.append(part)
        try:
            return ask()
        except OpportuneError as exc:
            self.down[part] = str(exc)
            return None


def control_metrics(deps: Deps, now_s: float) -> str:
    """The page; what a cloud does not tell is left out, the rest is there."""
    deps = deps.guarded(SECONDS)
    clouds = list(deps.clouds)
    with ThreadPoolExecutor(len(clouds)) as threads:  # every call inside has its own limit
        found = list(threads.map(lambda cloud: _told(deps, cloud, now_s), clouds))
    told = dict(zip(clouds, found, strict=True))
    for cloud, one in told.items():
        for part, why in one.down.items():
            extra = {"action": "metrics", "cloud": cloud, "what": part, "reason": why}
            log.warning("not read: %s %s", cloud, part, extra=extra)
    return page(_families(deps.settings, told, now_s), {"service": deps.settings.service})


def _told(deps: Deps, cloud: Cloud, now_s: float) -> Told:
    """One cloud, each part by itself; where the documents are silent the guard asks nothing else of the cloud."""
    cfg, services, state = deps.settings, deps.clouds[cloud], deps.state(cloud)
    told = Told(CloudView(cloud, recent=Unread("not asked")))
    documents = told.read("documents", lambda: state.service(cfg.service, f"decision-{job_id_for(cfg.service, now_s)}"))
    if documents is not None:
        for kind in (documents.routes, documents.totals, documents.control):
            if isinstance(kind, Unreadable):
                told.parts.append(kind.kind)
                told.down[kind.kind] = str(kind)
        through = documents.totals.through if isinstance(documents.totals, JobTotals) else ""
        jobs = told.read("jobs", lambda: state.jobs(cfg.service, since=through))
        if jobs is not None and jobs.unreadable:
            told.down["jobs"] = str(jobs.unreadable[0])
        known = isinstance(documents.totals, JobTotals | None)
        told.view = CloudView(
            cloud,
            routes=documents.routes,
            totals=documents.totals,
            control=documents.control,
            recent=Unread("not read") if jobs is None else tuple(r for r in jobs.records if r.job.job_id > through),
            skipped=tuple(map(str, jobs.unreadable if jobs else ())) + (() if known else ("totals",)),
        )
    first = f"decision-{job_id_for(cfg.service, now_s - DECISION_SLOTS * cfg.slot_seconds)}"
    decisions = told.read("decisions", lambda: state.decisions(first, limit=DECISION_SLOTS + 1))
    told.decisions = [one for one in decisions or () if one.service == cfg.service]
    told.queue = told.read("queue", services.queue.depth)
    told.dead_letters = told.read("dead_letters", services.queue.dead_letter_count)
    told.release = told.read("release", lambda: _release(deps, cloud))
    return told


def _release(deps: Deps, cloud: Cloud) -> Release | None:
    try:
        return decode(Release, deps.clouds[cloud].objects.get(release_key(deps.settings.service)))
    except NotFoundError:
        return None  # nothing was released yet


def _families(cfg: Settings, told: dict[Cloud, Told], now_s: float) -> list[Family]:
    views = {cloud: one.view for cloud, one in told.items()}
    history = job_history(views)
    return [
        *_jobs(cfg, history, now_s),
        *_decisions({one.decision_id: one for of in told.values() for one in of.decisions}),
        *_clouds(told),
        *_switches(cfg, views),
    ]


def _jobs(cfg: Settings, history: JobHistory, now_s: float) -> list[Family]:
    ended = Family("llm_retrain_total", "counter", "Training jobs that ended, by how.")
    seconds = Family("llm_retrain_duration_seconds", "summary", "Time of a training job on its machine.")
    cost = Family("llm_retrain_cost_usd_total", "counter", "What training cost.")
    live = Family("llm_rl_redeploy_total", "counter", "Models that went live by the policy.")
    static = Family("llm_static_retrain_total", "counter", "Retrains begun by the static baseline.")
    flying = Family("llm_jobs_in_flight", "gauge", "Jobs between claim and live.")
    overdue = Family("llm_retrain_overdue_seconds", "gauge", "How far the oldest job in flight is beyond its deadline.")
    spent = Family("llm_retrain_budget_spent_usd", "gauge", "Spent on training today (UTC), estimates included.")
    limit = Family("llm_retrain_budget_limit_usd", "gauge", "The budget of a day.")
    limit.add(cfg.budget_usd_per_day)
    for of in history.clouds:
        cloud, running = of.cloud, [record for record in of.recent if record.status in IN_FLIGHT]
        flying.add(len(running), cloud=cloud)
        overdue.add(max((_overdue_s(record, now_s) for record in running), default=0.0), cloud=cloud)
        if of.complete:
            total = of.total()
            for status in _ENDS:  # those at zero, too: an increase from nothing is seen by nobody
                ended.add(total.ended.get(status, 0), cloud=cloud, status=status)
            seconds.add(total.timed_s, "_sum", cloud=cloud)
            seconds.add(total.timed, "_count", cloud=cloud)
            cost.add(total.cost_usd, cloud=cloud)
    if history.complete:
        whole = JobTotals()
        for of in history.clouds:
            whole = whole.plus(of.total())
        live.add(0 if cfg.policy == "static" else whole.live)
        static.add(whole.started if cfg.policy == "static" else 0)
        spent.add(Facts.of(cfg, now_s, history.jobs(), {}, None).spent_usd)
    return [ended, seconds, cost, live, static, flying, overdue, spent, limit]


def _overdue_s(record: JobRecord, now_s: float) -> float:
    began_s = record.job.slot_s if record.started_s is None else record.started_s
    return max(0.0, now_s - began_s - record.job.deadline_s)


def _decisions(decisions: dict[str, Decision]) -> list[Family]:
    """Each slot's once: a decision is copied to both clouds."""
    action = Family("llm_decision_action", "gauge", "The newest decision: 0 hold, 1 retrain on AWS, 2 on Azure.")
    slot = Family("llm_decision_slot_timestamp_seconds", "gauge", "The slot of the newest decision.")
    recent = Family("llm_decisions_recent", "gauge", f"Decisions of the last {DECISION_SLOTS} slots, by action.")
    if decisions:
        newest = max(decisions.values(), key=lambda one: one.slot_s)
        action.add(newest.action)
        slot.add(newest.slot_s)
        counted = Counter(one.action for one in decisions.values())
        for each in Action:
            recent.add(counted[each], action=each.name.lower())
    return [action, slot, recent]


def _clouds(told: dict[Cloud, Told]) -> list[Family]:
    waiting = Family("llm_retrain_queue_depth", "gauge", "About how many jobs wait in the queue.")
    dead = Family("llm_dead_letters", "gauge", "About how many messages nobody could handle.")
    revision = Family("llm_release_revision", "gauge", "Revision of the release document.")
    up = Family("llm_control_plane_part_up", "gauge", "Whether a part of the control plane could be read.")
    for cloud, one in told.items():
        if one.queue is not None:
            waiting.add(one.queue, cloud=cloud)
        if one.dead_letters is not None:
            dead.add(one.dead_letters, cloud=cloud)
        if one.release is not None:
            revision.add(one.release.revision, cloud=cloud)
        for part in one.parts:
            up.add(part not in one.down, cloud=cloud, part=part)
    return [waiting, dead, revision, up]


def _switches(cfg: Settings, views: dict[Cloud, CloudView]) -> list[Family]:
    paused = Family("llm_paused", "gauge", "Whether an operator holds retrains and releases.")
    mode = Family("llm_mode", "gauge", "act, or watch: decide and record only.")
    healthy = Family("llm_route_healthy", "gauge", "Whether routers send requests to the cloud.")
    mode.add(1, mode=cfg.mode)
    switches = {cloud: view.control for cloud, view in views.items() if not isinstance(view.recent, Unread)}
    if switches:
        paused.add(paused_by(switches) is not None)
    table = last_table(views)
    for endpoint in table.endpoints if table else ():
        healthy.add(endpoint.healthy, cloud=endpoint.cloud)
    return [paused, mode, healthy]
