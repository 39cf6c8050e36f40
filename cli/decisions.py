"""`opportune decisions`: what was decided, and why."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Final

import click
import msgspec

from cli.clouds import deployment, each, service_option
from shared.contracts import Decision, job_id_for
from shared.errors import InvalidInputError
from shared.records import State

_UNITS: Final = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def moment_s(text: str, now_s: float) -> float:
    """POSIX seconds of `90m`, `24h`, `7d` (ago) or of an ISO 8601 time (UTC unless it says otherwise).

    Raises:
        InvalidInputError: it is neither.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text):
        return max(0.0, now_s - float(match[1]) * _UNITS[match[2]])
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidInputError(f"--since is {text!r}; allowed: 90m, 24h, 7d, or a time as 2026-01-31T14:00") from exc
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


@click.command()
@service_option
@click.option("--since", default="24h", show_default=True, help="90m, 24h, 7d, or an ISO 8601 time (UTC).")
@click.option("--all", "everything", is_flag=True, help="Also the slots in which nothing was done.")
@click.option("--json", "as_json", is_flag=True, help="One decision record per line.")
def decisions(service: str | None, since: str, everything: bool, as_json: bool) -> None:
    """List the decisions since a time: when, what, where, and the reason.

    \b
    Example: opportune decisions --since 7d
    """
    now_s = time.time()
    since_s = moment_s(since, now_s)
    settings, clouds = deployment(service)
    first = f"decision-{job_id_for(settings.service, since_s)}"
    found: dict[str, Decision] = {}
    for _, listed in each(clouds, lambda services: State(services.documents).decisions(first, limit=100_000)):
        found |= {d.decision_id: d for d in listed if d.service == settings.service}
    wanted = [d for _, d in sorted(found.items()) if everything or as_json or d.action or d.wanted]
    for decision in wanted:
        if as_json:
            click.echo(msgspec.json.encode(decision))
            continue
        when = f"{dt.datetime.fromtimestamp(decision.slot_s, dt.UTC):%Y-%m-%d %H:%M}"
        what = decision.action.name.lower().replace("_", " on ", 1)
        click.echo(f"{when}  {what:<16}  {decision.reason}")
    if not as_json:
        held = len(found) - len(wanted)
        click.echo(
            f"{len(found)} decisions since {since}" + (f", {held} plain holds not shown (--all)" if held else "")
        )
