"""`opportune pause`, `resume` and `stop`: the operator switch, on every cloud."""

from __future__ import annotations

import time
from typing import Final

import click
import msgspec

from cli.clouds import ask, deployment, service_option
from cli.output import emit, json_option, say
from shared.contracts import IN_FLIGHT, JobStatus
from shared.errors import ContractError
from shared.ports import CloudServices
from shared.records import Control
from shared.state import State

#: so many of the jobs that were stopped are remembered
STOPPED_JOBS: Final = 50


@click.command()
@service_option
@click.option("--reason", default="by a person", show_default=True, help="Why; shown in every decision record.")
@json_option
def pause(service: str | None, reason: str, as_json: bool) -> None:
    """Hold new retrains and releases until `opportune resume`.

    Decisions go on being recorded. What is queued does not start; a running job trains on, and its model waits for
    `resume`; `opportune stop JOB` ends it.

    Exits with 1 when a cloud was not reached: it is not paused there.

    \b
    Example: opportune pause --reason "incident 42"
    """
    _set(service, as_json, word="paused", paused=True, reason=reason)


@click.command()
@service_option
@json_option
def resume(service: str | None, as_json: bool) -> None:
    """Allow retrains again.

    \b
    Example: opportune resume
    """
    _set(service, as_json, word="resumed", paused=False, reason="")


@click.command()
@service_option
@click.argument("job_id", metavar="JOB")
@json_option
def stop(service: str | None, job_id: str, as_json: bool) -> None:
    """End a retrain, wherever it is: decided, queued, training or trained. Its model does not go live.

    \b
    Example: opportune stop qa-20270115t080000
    """
    settings, clouds = deployment(service)

    def end(services: CloudServices) -> str:
        state = State(services.documents)
        before = _control(state, settings.service)
        jobs = tuple(dict.fromkeys((*before.stopped_jobs, job_id)))[-STOPPED_JOBS:]
        state.set_control(settings.service, msgspec.structs.replace(before, stopped_jobs=jobs))
        held = state.job(job_id)
        if held is None:
            return "no record here"
        if held.record.status not in IN_FLIGHT:
            return f"is over: {held.record.status.value}"
        if held.record.status is JobStatus.TRAINING:
            services.training.stop(job_id)
            return "the training service was asked to end it; the next tick records it"
        return f"is {held.record.status.value}; the next tick ends it"

    asked = ask(clouds, end, failing=f"{job_id} is NOT stopped on {{cloud}}")
    for cloud, words in asked.answers.items():
        say(f"{job_id} on {cloud}: {words}", as_json)
    if as_json:
        emit({"service": settings.service, "job_id": job_id, "clouds": asked.answers, "failed": asked.failed})
    asked.finish()


def _control(state: State, service: str) -> Control:
    """The switch as it stands; one that cannot be read is set anew."""
    try:
        return state.control(service)
    except ContractError:
        return Control(False, "")


def _set(service: str | None, as_json: bool, *, word: str, paused: bool, reason: str) -> None:
    settings, clouds = deployment(service)

    def turn(services: CloudServices) -> None:
        state = State(services.documents)
        before = _control(state, settings.service)
        control = msgspec.structs.replace(before, paused=paused, reason=reason, changed_s=time.time())
        state.set_control(settings.service, control)

    asked = ask(
        clouds,
        turn,
        failing=f"{settings.service} is NOT {word} on {{cloud}}",
    )
    for cloud in asked.answers:
        say(f"{settings.service} {word} on {cloud}", as_json)
    if as_json:
        emit(
            {
                "service": settings.service,
                "paused": paused,
                "reason": reason,
                "done": list(asked.answers),
                "failed": asked.failed,
            }
        )
    asked.finish()
