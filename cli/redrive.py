"""`opportune redrive`: dead-lettered and poisoned messages go back to their queue, once what broke them is repaired."""

from __future__ import annotations

from typing import Final

import click

from cli.clouds import deployment, each
from shared.contracts import TrainingJob, decode
from shared.errors import ContractError
from shared.ports import CloudServices

#: a look hides the messages from the next command this long
LOOK_S: Final = 2


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list them.")
def redrive(dry_run: bool) -> None:
    """Send the messages of the dead-letter queue (AWS) and the poison queue (Azure) back to the retrain queue.

    A message that this program still cannot read stays where it is. A job that ran meanwhile does not run twice.

    \b
    Example: opportune redrive --dry-run
    """
    _, clouds = deployment()
    for cloud, (sent, kept) in each(clouds, lambda services: _redrive(services, dry_run)):
        for job_id, reason in sent:
            click.echo(f"{cloud}: {'would send back' if dry_run else 'sent back'} {job_id}: {reason}")
        for body, reason in kept:
            click.echo(f"{cloud}: left {body[:60]!r}: {reason}")
        click.echo(f"{cloud}: {len(sent)} {'to send back' if dry_run else 'sent back'}, {len(kept)} left")


def _redrive(services: CloudServices, dry_run: bool) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """([job id, reason] sent back, [body, reason] left)."""
    sent, kept = [], []
    for letter in services.queue.dead_letters(LOOK_S if dry_run else 60):
        try:
            job = decode(TrainingJob, letter.body)
        except ContractError:
            kept.append((letter.body, letter.reason))
            continue
        if not dry_run:
            # In this order a crash between the two leaves a duplicate, which is harmless, not a loss.
            services.queue.enqueue(job)
            services.queue.forget(letter)
        sent.append((job.job_id, letter.reason))
    return sent, kept
