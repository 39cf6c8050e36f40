"""`opportune releases`: what each cloud's instances are to serve, and what they have loaded or why not."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import click
import msgspec

from cli.clouds import ask, deployment, service_option
from cli.output import json_option
from cli.releasing import current, statuses, versions
from shared.ports import CloudServices
from shared.releases import INSTANCE_TTL_S, serving


@click.command()
@service_option
@json_option
def releases(service: str | None, as_json: bool) -> None:
    """Show per cloud: the release, the versions that are uploaded, and every instance with what it has loaded.

    \b
    Example: opportune releases
    """
    settings, clouds = deployment(service)
    asked = ask(clouds, lambda services: _of(services, settings.service, time.time()))
    asked.show(settings.service, _lines, as_json)
    asked.finish()


def _of(services: CloudServices, service: str, now_s: float) -> dict[str, Any]:
    release, _ = current(services.objects, service)
    told, unread = statuses(services.objects, service)
    found = serving(release, told, now_s)
    return {
        "release": msgspec.to_builtins(release) if release else None,
        "serving": found.version,
        "in_force": release is not None and found.version == release.of("stable") and not found.updating,
        "reason": found.reason,
        "versions": versions(services.objects),
        "instances": [
            msgspec.to_builtins(status)
            | {"age_s": now_s - status.told_s, "gone": now_s - status.told_s > INSTANCE_TTL_S}
            for status in told
        ],
        "unreadable": unread,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    release = found["release"]
    if release is None:
        lines = ["release     none yet: opportune release MODEL --first"]
    else:
        when = f"{dt.datetime.fromtimestamp(release['changed_s'], dt.UTC):%Y-%m-%d %H:%M} UTC"
        force = "in force" if found["in_force"] else f"NOT in force, {found['serving'] or 'nothing'} serves"
        lines = [f"release     revision {release['revision']} of {when}, {force}: {release['reason']}"]
        lines += [f"{one['role']:<11} {one['model_version']}" for one in release["versions"]]
    if found["reason"]:
        lines.append(f"why         {found['reason']}")
    for one in found["instances"]:
        loaded = ", ".join(
            f"{version['model_version']} {version['state']}{': ' + version['reason'] if version['reason'] else ''}"
            for version in one["versions"]
        )
        seen = "GONE" if one["gone"] else f"{one['age_s']:.0f} s ago"
        why = f"; {one['reason']}" if one["reason"] else ""
        lines.append(
            f"instance    {one['instance']} ({seen}) follows revision {one['revision']}: {loaded or 'nothing'}{why}"
        )
    lines += [f"unreadable  {one}" for one in found["unreadable"]]
    lines.append(f"uploaded    {', '.join(found['versions']) or 'nothing'}")
    return lines
