"""`opportune pause` and `opportune resume`: a person's word against new retrains, on every cloud."""

from __future__ import annotations

import click

from cli.clouds import deployment, each, service_option
from shared.records import Control, State


@click.command()
@service_option
@click.option("--reason", default="by a person", show_default=True, help="Why; shown in every decision record.")
def pause(service: str | None, reason: str) -> None:
    """Hold new retrains until `opportune resume`. Decisions go on being recorded, running jobs go on.

    \b
    Example: opportune pause --reason "incident 42"
    """
    _set(service, Control(True, reason), "paused")


@click.command()
@service_option
def resume(service: str | None) -> None:
    """Allow retrains again.

    \b
    Example: opportune resume
    """
    _set(service, Control(False, ""), "resumed")


def _set(service: str | None, control: Control, word: str) -> None:
    settings, clouds = deployment(service)
    done = each(clouds, lambda services: State(services.documents).set_control(settings.service, control))
    for cloud, _ in done:
        click.echo(f"{settings.service} {word} on {cloud}")
