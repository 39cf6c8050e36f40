"""`opportune pause` and `opportune resume`: a person's word against new retrains, on every cloud."""

from __future__ import annotations

import click

from cli.clouds import ask, deployment, service_option
from cli.output import emit, json_option, say
from shared.records import Control, State


@click.command()
@service_option
@click.option("--reason", default="by a person", show_default=True, help="Why; shown in every decision record.")
@json_option
def pause(service: str | None, reason: str, as_json: bool) -> None:
    """Hold new retrains until `opportune resume`. Decisions go on being recorded, running jobs go on.

    Exits with 1 when a cloud was not reached: it is not paused there.

    \b
    Example: opportune pause --reason "incident 42"
    """
    _set(service, Control(True, reason), "paused", as_json)


@click.command()
@service_option
@json_option
def resume(service: str | None, as_json: bool) -> None:
    """Allow retrains again.

    \b
    Example: opportune resume
    """
    _set(service, Control(False, ""), "resumed", as_json)


def _set(service: str | None, control: Control, word: str, as_json: bool) -> None:
    settings, clouds = deployment(service)
    asked = ask(
        clouds,
        lambda services: State(services.documents).set_control(settings.service, control),
        failing=f"{settings.service} is NOT {word} on {{cloud}}",
    )
    for cloud in asked.answers:
        say(f"{settings.service} {word} on {cloud}", as_json)
    if as_json:
        emit(
            {
                "service": settings.service,
                "paused": control.paused,
                "reason": control.reason,
                "done": list(asked.answers),
                "failed": asked.failed,
            }
        )
    asked.finish()
