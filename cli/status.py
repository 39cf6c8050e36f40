"""`opportune status`: where a deployment stands, on one screen."""

from __future__ import annotations

import datetime as dt
import time

import click

from cli.clouds import deployment, each, service_option
from cli.redrive import LOOK_S
from shared.contracts import IN_FLIGHT
from shared.ports import CloudServices
from shared.records import State
from shared.settings import Settings


@click.command()
@service_option
def status(service: str | None) -> None:
    """Show per cloud: the heartbeat, the routes, the last decision, running jobs, and what was dead-lettered.

    \b
    Example: opportune status
    """
    settings, clouds = deployment(service)
    for cloud, lines in each(clouds, lambda services: _lines(services, settings, time.time())):
        click.echo(f"{settings.service} on {cloud}")
        for line in lines:
            click.echo(f"  {line}")


def _lines(services: CloudServices, settings: Settings, now_s: float) -> list[str]:
    state = State(services.documents)
    control = state.control(settings.service)
    lines = [f"retraining  {'PAUSED: ' + control.reason if control.paused else 'allowed'}"]
    table = state.routes(settings.service)
    if table is None:
        lines.append("heartbeat   none yet: has the schedule run?")
    else:
        age_s = now_s - table.heartbeat_s
        late = " LATE" if age_s > settings.standby_after_slots * settings.slot_seconds else ""
        lines.append(f"heartbeat   {age_s:.0f} s ago{late}, scheduler {table.scheduler}, route epoch {table.epoch}")
        for endpoint in table.endpoints:
            health = "healthy" if endpoint.healthy else "UNHEALTHY"
            latency = "" if endpoint.latency_s is None else f", {endpoint.latency_s * 1e3:.0f} ms"
            where = f"{endpoint.cloud}: model {endpoint.model_version} at {endpoint.url}"
            lines.append(f"route       {where}, {health}{latency}")
    jobs = state.jobs(settings.service).records
    for record in [r for r in jobs if r.status in IN_FLIGHT]:
        lines.append(f"job         {record.job.job_id} is {record.status.value}")
    ended = [r for r in jobs if r.status not in IN_FLIGHT]
    if ended:
        last = ended[-1]
        lines.append(f"last job    {last.job.job_id} is {last.status.value}{': ' + last.reason if last.reason else ''}")
    letters = services.queue.dead_letters(LOOK_S)
    lines.append(f"waiting     {services.queue.depth()} jobs in the queue")
    lines.append(f"dead        {len(letters)} messages{'; see `opportune redrive --dry-run`' if letters else ''}")
    decided = state.decisions(f"decision-{settings.service}-{_day(now_s)}", limit=100_000)
    own = [d for d in decided if d.service == settings.service]
    if own:
        moment = f"{dt.datetime.fromtimestamp(own[-1].slot_s, dt.UTC):%H:%M} UTC"
        lines.append(f"decided     {moment}: {own[-1].reason} ({len(own)} decisions today)")
    else:
        lines.append("decided     nothing today")
    return lines


def _day(now_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(now_s, dt.UTC):%Y%m%d}"
