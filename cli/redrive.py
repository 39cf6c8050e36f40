"""`opportune redrive`: dead-lettered and poisoned messages go back to their queue, once what broke them is repaired."""

from __future__ import annotations

from typing import Any, Final

import click

from cli.clouds import ask, deployment
from cli.output import emit, json_option, say
from shared.contracts import TrainingJob, decode
from shared.errors import ContractError
from shared.ports import CloudServices

#: while they are worked through, the messages are hidden from whoever else redrives; what is left is shown again
HIDDEN_S: Final = 60


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list them.")
@json_option
def redrive(dry_run: bool, as_json: bool) -> None:
    """Send the messages of the dead-letter queue (AWS) and the poison queue (Azure) back to the retrain queue.

    A message that this program still cannot read stays where it is. A job that ran meanwhile does not run twice.

    \b
    Example: opportune redrive --dry-run
    """
    _, clouds = deployment()
    asked = ask(clouds, lambda services: _redrive(services, dry_run), failing="not everything was looked at on {cloud}")
    for cloud, done in asked.answers.items():
        for letter in done["sent"]:
            verb = "would send back" if dry_run else "sent back"
            say(f"{cloud}: {verb} {letter['job_id']}: {letter['reason']}", as_json)
        for letter in done["left"]:
            say(f"{cloud}: left {letter['body'][:60]!r}: {letter['reason']}", as_json)
        verb = "to send back" if dry_run else "sent back"
        say(f"{cloud}: {len(done['sent'])} {verb}, {len(done['left'])} left", as_json)
    if as_json:
        emit({"dry_run": dry_run, "clouds": asked.answers, "failed": asked.failed})
    asked.finish()


def _redrive(services: CloudServices, dry_run: bool) -> dict[str, list[dict[str, Any]]]:
    """{"sent": job_id and reason of what went back, "left": body and reason of what did not}."""
    sent: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    hidden = services.queue.dead_letters(HIDDEN_S)
    try:
        for letter in tuple(hidden):
            try:
                job = decode(TrainingJob, letter.body)
            except ContractError:
                left.append({"body": letter.body, "reason": letter.reason})
                continue
            if not dry_run:
                # In this order a crash between the two leaves a duplicate, which is harmless, not a loss.
                services.queue.enqueue(job)
                services.queue.forget(letter)
                hidden.remove(letter)
            sent.append({"job_id": job.job_id, "reason": letter.reason})
    finally:
        for letter in hidden:
            services.queue.release(letter)
    return {"sent": sent, "left": left}
