"""`opportune status`: where a deployment stands, on one screen."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import click
import msgspec

from cli.clouds import ask, deployment, service_option
from cli.output import json_option
from shared.addresses import shown
from shared.contracts import IN_FLIGHT, Decision, JobRecord
from shared.ports import CloudServices
from shared.settings import Settings
from shared.state import State


@click.command()
@service_option
@json_option
def status(service: str | None, as_json: bool) -> None:
    """Show per cloud: the heartbeat, the routes, the last decision, running jobs, and what was dead-lettered.

    \b
    Example: opportune status
    """
    settings, clouds = deployment(service)
    asked = ask(clouds, lambda services: _standing(services, settings, time.time()))
    asked.show(settings.service, _lines, as_json)
    asked.finish()


def _standing(services: CloudServices, settings: Settings, now_s: float) -> dict[str, Any]:
    """What one cloud knows."""
    state = State(services.documents)
    control = state.control(settings.service)
    table = state.routes(settings.service)
    jobs = state.jobs(settings.service).records
    ended = [record for record in jobs if record.status not in IN_FLIGHT]
    today = state.decisions(f"decision-{settings.service}-{_day(now_s)}", limit=100_000)
    own = [decision for decision in today if decision.service == settings.service]
    heartbeat = None
    if table is not None:
        age_s = now_s - table.heartbeat_s
        late = age_s > settings.standby_after_slots * settings.slot_seconds
        heartbeat = {"age_s": age_s, "late": late, "scheduler": table.scheduler, "epoch": table.epoch}
    endpoints = [] if table is None else [msgspec.to_builtins(endpoint) for endpoint in table.endpoints]
    return {
        "paused": control.paused,
        "reason": control.reason,
        "heartbeat": heartbeat,
        "routes": [endpoint | {"url": shown(endpoint["url"])} for endpoint in endpoints],
        "running": [_job(record) for record in jobs if record.status in IN_FLIGHT],
        "last_job": _job(ended[-1]) if ended else None,
        "waiting": services.queue.depth(),
        "dead_letters": services.queue.dead_letter_count(),
        "decisions_today": len(own),
        "last_decision": _decision(own[-1]) if own else None,
    }


def _job(record: JobRecord) -> dict[str, Any]:
    return {"job_id": record.job.job_id, "status": record.status.value, "reason": record.reason}


def _decision(decision: Decision) -> dict[str, Any]:
    return {"decision_id": decision.decision_id, "slot_s": decision.slot_s, "reason": decision.reason}


def _lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"retraining  {'PAUSED: ' + found['reason'] if found['paused'] else 'allowed'}"]
    beat = found["heartbeat"]
    if beat is None:
        lines.append("heartbeat   none yet: has the schedule run?")
    else:
        late = " LATE" if beat["late"] else ""
        who = f"scheduler {beat['scheduler']}, route epoch {beat['epoch']}"
        lines.append(f"heartbeat   {beat['age_s']:.0f} s ago{late}, {who}")
    for endpoint in found["routes"]:
        health = "healthy" if endpoint["healthy"] else "UNHEALTHY"
        latency = "" if endpoint["latency_s"] is None else f", {endpoint['latency_s'] * 1e3:.0f} ms"
        where = f"{endpoint['cloud']}: model {endpoint['model_version']} at {endpoint['url']}"
        lines.append(f"route       {where}, {health}{latency}")
    lines += [f"job         {job['job_id']} is {job['status']}" for job in found["running"]]
    if last := found["last_job"]:
        lines.append(
            f"last job    {last['job_id']} is {last['status']}{': ' + last['reason'] if last['reason'] else ''}"
        )
    dead = found["dead_letters"]
    lines.append(f"waiting     {found['waiting']} jobs in the queue")
    lines.append(f"dead        {dead} messages{'; see `opportune redrive --dry-run`' if dead else ''}")
    if decided := found["last_decision"]:
        moment = f"{dt.datetime.fromtimestamp(decided['slot_s'], dt.UTC):%H:%M} UTC"
        lines.append(f"decided     {moment}: {decided['reason']} ({found['decisions_today']} decisions today)")
    else:
        lines.append("decided     nothing today")
    return lines


def _day(now_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(now_s, dt.UTC):%Y%m%d}"
