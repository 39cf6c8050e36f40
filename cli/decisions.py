"""`opportune decisions`: what was decided, and why."""

from __future__ import annotations

import datetime as dt
import time

import click
import msgspec

from cli.clouds import ask, deployment, service_option
from cli.times import parse_time
from shared.contracts import Decision, job_id_for
from shared.state import State


@click.command()
@service_option
@click.option("--since", default="24h", show_default=True, help="90m, 24h, 7d, or an ISO 8601 time (UTC).")
@click.option("--all", "everything", is_flag=True, help="Also the slots in which nothing was done.")
@click.option("--json", "as_json", is_flag=True, help="Every decision record as JSON, one per line, oldest first.")
def decisions(service: str | None, since: str, everything: bool, as_json: bool) -> None:
    """List the decisions since a time: when, what, where, and the reason.

    \b
    Example: opportune decisions --since 7d
    """
    since_s = parse_time(since, "--since", time.time())
    settings, clouds = deployment(service)
    first = f"decision-{job_id_for(settings.service, since_s)}"
    asked = ask(clouds, lambda services: State(services.documents).decisions(first, limit=100_000))
    found: dict[str, Decision] = {}
    for listed in asked.answers.values():
        found |= {d.decision_id: d for d in listed if d.service == settings.service}
    wanted = [d for _, d in sorted(found.items()) if everything or as_json or d.action or d.wanted]
    for decision in wanted:
        if as_json:
            click.echo(msgspec.json.encode(decision))
            continue
        when = f"{dt.datetime.fromtimestamp(decision.slot_s, dt.UTC):%Y-%m-%d %H:%M}"
        what = decision.action.name.lower().replace("_", " on ", 1)
        click.echo(f"{when}  {what:<16}  {decision.reason}")
    if not as_json and asked.answers:
        held = len(found) - len(wanted)
        click.echo(
            f"{len(found)} decisions since {since}" + (f", {held} plain holds not shown (--all)" if held else "")
        )
    asked.finish()
