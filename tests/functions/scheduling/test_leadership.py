"""Both schedulers in charge at the same moment, over a real table and queue on each cloud."""

import functools
import json
import secrets
import threading

import msgspec
import pytest

from functions import bootstrap
from functions.retraining.start import start_training
from functions.scheduling.tick import tick
from shared.contracts import Action, Series, encode

pytestmark = [pytest.mark.xdist_group("clouds"), pytest.mark.slow]
SLOTS = 10


def shifted(window, by_s):
    series = {n: Series(tuple(t + by_s for t in s.timestamps_s), s.values) for n, s in window.series.items()}
    return msgspec.structs.replace(window, start_s=window.start_s + by_s, end_s=window.end_s + by_s, series=series)


def at_once(*calls):
    """Run them in threads that begin together; what they raise fails the test."""
    barrier, raised = threading.Barrier(len(calls)), []

    def run(call):
        barrier.wait()
        try:
            call()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised, raised


@pytest.fixture
def both(moto, azurite, world, now):
    """The world with real documents and queues; a service of its own, and queues of its own."""
    import boto3  # noqa: TID251 - plays the deployment
    from azure.storage.queue import QueueClient  # noqa: TID251

    service = f"split{secrets.token_hex(3)}"
    boto3.client("sqs").create_queue(QueueName=service)
    settings = msgspec.structs.replace(
        azurite, service=service, queue=service, min_new_pairs=1, cooldown_slots=0.0, budget_usd_per_day=1e6
    )
    # The adapters read dead letters only: as such a queue, theirs can be read here.
    settings = msgspec.structs.replace(settings, dead_letter_queue=service, poison_queue=service)
    QueueClient.from_connection_string(settings.azure_storage_connection, service).create_queue()
    for cloud in ("aws", "azure"):
        real = bootstrap.cloud_services(cloud, settings)
        world.clouds[cloud] = world.clouds[cloud]._replace(documents=real.documents, queue=real.queue)
    world.settings = settings
    return world


def delivered(queue):
    """Every message of the queue as its function gets it, removed."""
    letters = queue.dead_letters()
    for letter in letters:
        queue.forget(letter)
    return [letter.body for letter in letters]


def test_ten_slots_with_two_schedulers_start_one_job_per_decision(both, now, artifact):
    service, led = both.settings.service, None
    base = both.deps().metrics().window(now, now, 60.0)
    for slot in range(SLOTS):
        at = now + 60.0 * slot
        both.metrics = shifted(base, at - now)
        for cloud in ("aws", "azure"):
            first = 1000 * slot + 100
            both.label(cloud, first, 5, received_s=at - 30.0 - first)  # `label` counts seconds on from there
        # The standby last saw itself in charge, and would rather train where it is: there it costs a tenth.
        if (table := both.state("azure").routes(service)) is not None:
            claimed = msgspec.structs.replace(table, scheduler="azure")
            both.clouds["azure"].documents.put("routes", service, encode(claimed))
        cheap = {"price_usd_per_hour_azure": 0.05} if slot % 2 else {"price_usd_per_hour_aws": 0.05}
        if slot == 0:
            led = tick(both.deps("aws"), at)  # publishes the first routes
        at_once(
            functools.partial(tick, both.deps("aws"), at + 1.0),
            functools.partial(tick, both.deps("azure", **cheap), at + 1.0),
        )
        for cloud in ("aws", "azure"):
            for message in delivered(both.clouds[cloud].queue):
                twice = functools.partial(start_training, both.deps(cloud), message, at + 2.0)
                at_once(twice, twice)
        for cloud in ("aws", "azure"):
            for job, _, _ in both.training(cloud).started:
                if both.training(cloud).status(job.job_id).state == "running":
                    made = artifact(job.job_id, service=service, parent_version=job.parent_version)
                    both.training(cloud).finish(job.job_id, artifact=made)
    assert led is not None
    ours = f"decision-{service}-"
    settled = {
        cloud: {d.decision_id: d for d in both.state(cloud).decisions(ours) if d.service == service}
        for cloud in ("aws", "azure")
    }
    assert settled["aws"] == settled["azure"], "the two tables tell the same story"
    assert len(settled["aws"]) == SLOTS
    wanted = sorted(d.job_id for d in settled["aws"].values() if d.action is not Action.HOLD)
    started = sorted(job.job_id for cloud in ("aws", "azure") for job, _, _ in both.training(cloud).started)
    assert started == wanted
    assert len(wanted) >= SLOTS / 2, json.dumps([d.reason for d in settled["aws"].values()])
