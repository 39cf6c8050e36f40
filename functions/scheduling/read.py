"""Read: everything a slot needs, once, the clouds side by side. What cannot be read is part of the view."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from functions.clouds import Deps
from functions.retraining.gate import checked
from functions.scheduling.view import CloudView, JobView, Unusable, View
from policy.observation.live import REQUIRED, window_of
from shared.artifact import MANIFEST
from shared.contracts import (
    IN_FLIGHT,
    Cloud,
    JobRecord,
    JobStatus,
    MetricWindow,
    ModelManifest,
    TrainingJob,
    job_id_for,
    new_trace_id,
    slot_of,
)
from shared.deadline import bounded
from shared.errors import (
    MetricsError,
    MetricsUnavailableError,
    ModelError,
    NotFoundError,
    OpportuneError,
)
from shared.ports import CloudServices
from shared.records import JobTotals, Unread, Unreadable
from shared.values import Served

log = logging.getLogger("opportune.functions.read")

T = TypeVar("T")

#: how far back a tick looks for decisions whose job nobody claimed
UNCLAIMED_SLOTS: Final = 60
#: the metrics' share of the run
METRICS_S: Final = 15.0
#: a manifest is a few kilobytes, and a model a few files: more is no model of ours
MOST_MANIFEST_BYTES: Final = 1024 * 1024
MOST_FILES: Final = 1000


def read(deps: Deps, now_s: float, *, observe: bool = True) -> View:
    """The slot of `now_s`; without `observe` the metrics are left out, for a run that decides nothing."""
    cfg = deps.settings
    slot_s = slot_of(now_s, cfg.slot_seconds)
    decision_id = f"decision-{job_id_for(cfg.service, slot_s)}"
    tasks: dict[str, Callable[[], Any]] = {
        cloud: partial(_cloud, deps, cloud, decision_id, now_s) for cloud in deps.clouds
    }
    if observe:
        tasks["metrics"] = partial(observed, deps, now_s)
    found = _side_by_side(tasks, parallel=deps.parallel)
    window, served = found.pop("metrics", (MetricsUnavailableError("the metrics", "not asked"), {}))
    view = View(
        settings=cfg,
        now_s=now_s,
        slot_s=slot_s,
        trace_id=new_trace_id(),
        routes_trace_id=new_trace_id(),
        clouds={cloud: found[cloud] for cloud in deps.clouds},
        window=window,
        served=served,
    )
    for what, why in view.conditions().items():
        # what is skipped stays skipped until a person looks: that is an error, and an alarm
        level = logging.ERROR if "skipped" in what else logging.WARNING
        log.log(level, "not read: %s", what, extra={"action": "read", "what": what, "reason": why})
    return view


def _side_by_side(tasks: Mapping[str, Callable[[], Any]], *, parallel: bool) -> dict[str, Any]:
    """Each task's result. A task raises only where there is a mistake in this program; that is not swallowed."""
    if not parallel or len(tasks) == 1:
        return {name: task() for name, task in tasks.items()}
    results: dict[str, Any] = {}
    failures: list[BaseException] = []

    def run(name: str, task: Callable[[], Any]) -> None:
        try:
            results[name] = task()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in tasks.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # every call inside has its own limit
    if failures:
        raise failures[0]
    return {name: results[name] for name in tasks}


def observed(deps: Deps, now_s: float) -> tuple[MetricWindow | MetricsError, dict[Cloud, Served]]:
    """What the policy looks at, and what routers start from; metrics that fail are not asked twice.

    Where one cloud serves alone, its latency is the service's, and nobody asks again.
    """
    cfg = deps.settings
    try:
        metrics = _metrics(deps, deps.metrics)
        window = _metrics(deps, lambda: metrics.window(*window_of(cfg, now_s), cfg.slot_seconds, REQUIRED))
    except MetricsError as exc:
        return exc, {}
    try:
        window = _metrics(deps, lambda: metrics.explained(window))
    except MetricsError as exc:
        log.warning("metrics without a reason", extra={"action": "read", "reason": str(exc)})
    if len(deps.clouds) == 1:
        (cloud,) = deps.clouds
        latency = window.series["latency"].values
        return window, {cloud: Served(latency[-1] if latency else None, None)}
    try:
        return window, _metrics(deps, lambda: metrics.served(now_s, cfg.slot_seconds))
    except MetricsError as exc:
        log.warning("routes without metrics", extra={"action": "route", "reason": str(exc)})
        return window, {}


def _metrics(deps: Deps, call: Callable[[], T]) -> T:
    """The answer of the metric store within its share of the run, or a MetricsError whatever it does."""
    try:
        return bounded("the metric store", min(METRICS_S, deps.call_s, deps.deadline.left()), call)
    except MetricsError:
        raise
    except OpportuneError as exc:
        raise MetricsUnavailableError("the metrics' address", str(exc)) from exc
    except Exception as exc:  # a store that answers something else than metrics must not end the tick
        raise MetricsUnavailableError(
            "the metrics' address", f"not a Prometheus answer: {type(exc).__name__}: {exc}"
        ) from exc


def _cloud(deps: Deps, cloud: Cloud, decision_id: str, now_s: float) -> CloudView:
    """One cloud, its documents first, then its endpoint; each thing by itself."""
    cfg, services, state = deps.settings, deps.clouds[cloud], deps.state(cloud)
    # the documents first: where they are silent nothing else of the cloud is asked
    documents = _or_unread(lambda: state.service(cfg.service, decision_id))
    seen: dict[str, Any] = {"host": _or_unread(services.host.state)}
    if isinstance(documents, Unread):
        return CloudView(cloud, documents=documents, recent=documents, retrains=documents, **seen)
    routes, totals, control, decision, etags = documents
    through = totals.through if isinstance(totals, JobTotals) else ""
    skipped: list[Unreadable] = [d for d in (routes, totals, control, decision) if isinstance(d, Unreadable)]
    jobs = _or_unread(lambda: state.jobs(cfg.service, since=through))
    recent: tuple[JobRecord, ...] | Unread
    if isinstance(jobs, Unread):
        recent = jobs
    else:
        recent = tuple(record for record in jobs.records if record.job.job_id > through)
        skipped += jobs.unreadable
    slot_s = slot_of(now_s, cfg.slot_seconds)
    back_s = min(cfg.job_deadline_seconds, UNCLAIMED_SLOTS * cfg.slot_seconds)
    since = f"decision-{job_id_for(cfg.service, slot_s - back_s)}"
    retrains = _or_unread(lambda: state.retrains(since))
    in_flight = [r for r in recent if r.status in IN_FLIGHT] if not isinstance(recent, Unread) else []
    looked_into = [_job(deps, services, record) for record in in_flight]
    return CloudView(
        cloud,
        routes=routes,
        totals=totals,
        control=control,
        decision=decision,
        etags=etags,
        recent=recent,
        retrains=retrains if isinstance(retrains, Unread) else tuple(retrains),
        open_jobs=tuple(job for job in looked_into if isinstance(job, JobView)),
        skipped=(*map(str, skipped), *(str(job) for job in looked_into if isinstance(job, Unread))),
        **seen,
    )


def _job(deps: Deps, services: CloudServices, record: JobRecord) -> JobView | Unread | None:
    """A job in flight with the tag to change it; without that nothing can be done about it. None: it is over by now."""
    job_id = record.job.job_id
    held = _or_unread(lambda: deps.state(services.cloud).job(job_id))
    if isinstance(held, Unread):
        return Unread(f"job {job_id}: {held.reason}")
    if held is None or held.record.status not in IN_FLIGHT:
        return None
    status: Any = None
    if held.record.status in (JobStatus.CLAIMED, JobStatus.TRAINING):
        status = _or_unread(lambda: services.training.status(job_id))
    done = held.record.status is JobStatus.SUCCEEDED or getattr(status, "state", "") == "succeeded"
    return JobView(held, status, _model(services, held.record.job) if done else None)


def _model(services: CloudServices, job: TrainingJob) -> ModelManifest | Unusable | Unread:
    """What the job's model says of itself; its weights stay where they are."""
    try:
        prefix = services.training.model_prefix(job.job_id)
        found = list(itertools.islice(services.objects.entries(prefix), MOST_FILES + 1))
        sizes = {entry.key.removeprefix(prefix): entry.size for entry in found}
        if len(found) > MOST_FILES:
            return Unusable(f"more than {MOST_FILES} files lie in {services.objects.uri(prefix)}")
        if MANIFEST not in sizes:
            return Unusable(f"there is no {MANIFEST} in {services.objects.uri(prefix)}")
        if sizes[MANIFEST] > MOST_MANIFEST_BYTES:
            return Unusable(f"its {MANIFEST} has {sizes[MANIFEST]} bytes; {MOST_MANIFEST_BYTES} are allowed")
        return checked(services.objects.get(f"{prefix}{MANIFEST}"), sizes, job)
    except (NotFoundError, ModelError) as exc:
        return Unusable(str(exc))
    except OpportuneError as exc:
        return Unread(str(exc))


def _or_unread(call: Callable[[], T]) -> T | Unread:
    """What the call returns, or why it does not."""
    try:
        return call()
    except OpportuneError as exc:
        return Unread(str(exc))
