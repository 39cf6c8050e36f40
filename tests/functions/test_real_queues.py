"""Hundreds of messages with duplicates, redeliveries, reordering and rubbish, over SQS (moto) and Azurite.

OPPORTUNE_STORM_MESSAGES=10000 makes it thousands. A failure prints the seed; OPPORTUNE_STORM_SEED=<seed> repeats that
storm.
"""

import itertools
import json
import os
import random
from types import SimpleNamespace

import azure.functions as func
import boto3  # noqa: TID251 - plays the cloud that delivers
import msgspec
import pytest
from azure.storage.queue import (  # noqa: TID251 - plays the host that delivers
    BinaryBase64DecodePolicy,
    QueueClient,
    TextBase64EncodePolicy,
)

from functions import bootstrap
from functions.aws import retrain
from functions.azure import retrain as azure_queue
from shared.contracts import FeedbackPair, encode
from shared.errors import UnavailableError
from shared.ports import CloudServices

pytestmark = [pytest.mark.xdist_group("clouds"), pytest.mark.slow, pytest.mark.timeout(1800)]

CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=256, invoked_function_arn="arn:aws:lambda:x", aws_request_id="r"
)
SIZE = int(os.environ.get("OPPORTUNE_STORM_MESSAGES") or 400)
#: of the messages, how many name different jobs, and how many are malformed
JOBS, RUBBISH = 0.05, 0.1
#: messages in a queue at once: the emulators look at all of them in every call
BACKLOG = 50
#: how often a function or its host dies between the work and the deletion of the message
DIES = 0.1


class Unreliable:
    """A training service that fails at times when it is asked to start a job, before or after it did."""

    def __init__(self, training, rng):
        self._training = training
        self._rng = rng

    def __getattr__(self, name):
        return getattr(self._training, name)

    def start(self, job, data_uri, parent_uri):
        if self._rng.random() < 0.2:
            raise UnavailableError("training", "timed out before")
        self._training.start(job, data_uri, parent_uri)
        if self._rng.random() < 0.2:
            raise UnavailableError("training", "timed out after")


@pytest.fixture
def rng():
    seed = int(os.environ.get("OPPORTUNE_STORM_SEED") or random.SystemRandom().randrange(10**6))
    print(f"OPPORTUNE_STORM_SEED={seed}")
    return random.Random(seed)


def real_world(world, cloud, settings, rng):
    """The world with real storage on `cloud`; its training service stays the one in memory, made unreliable."""
    real = bootstrap.cloud_services(cloud, settings)
    memory = world.training(cloud)
    world.clouds = {cloud: CloudServices(cloud, *real[1:4], Unreliable(memory, rng), world.clouds[cloud].host)}
    world.settings = msgspec.structs.replace(settings, min_new_pairs=1, scheduler=cloud)
    pair = FeedbackPair(question="q", answers=("a",), received_s=1_799_999_000.0)
    real.objects.put(f"feedback/{cloud}/20270115T075500-1.jsonl", encode(pair))
    return memory


def storm(world, cloud, size, rng):
    """Jobs delivered once to many times among malformed messages, shuffled: (job ids, messages, malformed -> why)."""
    run = rng.randrange(10**6)  # the stores outlive one test
    jobs = [
        world.decided(cloud, service=f"{cloud}{run}x{n}", job_id=f"{cloud}{run}x{n}-1") for n in range(int(JOBS * size))
    ]
    valid = [encode(job).decode() for job in jobs]
    malformed = dict(rubbish(valid[0], cloud, n) for n in range(int(RUBBISH * size)))
    again = rng.choices(valid, k=size - len(valid) - len(malformed))
    messages = [*valid, *again, *malformed]
    rng.shuffle(messages)
    assert len(messages) == size
    return sorted(job.job_id for job in jobs), messages, malformed


def rubbish(good, cloud, n):
    """(a message nobody can handle, a word of the reason)."""
    job = {**json.loads(good), "trace_id": f"{n:032x}"}
    other = "azure" if cloud == "aws" else "aws"
    kinds = [
        (f'{{"rubbish": {n}', "not JSON"),
        (json.dumps({name: value for name, value in job.items() if name != "job_id"}), "job_id"),
        (json.dumps({**job, "version": 99}), "version"),
        (json.dumps({**job, "cloud": other}), f"this is the queue of {cloud}"),
        (json.dumps({**job, "deadline_s": f"soon {n}"}), "deadline_s"),
        (json.dumps([n]), "object"),
    ]
    return kinds[n % len(kinds)]


def check(memory, wanted, kept, malformed):
    """Nothing twice, nothing lost, every reason told."""
    assert sorted(j.job_id for j, _, _ in memory.started) == wanted
    assert sorted(kept) == sorted(malformed)
    assert not {body: reason for body, reason in kept.items() if malformed[body] not in reason}


def test_over_sqs_every_valid_job_starts_once_and_every_malformed_message_is_kept(moto, world, now, monkeypatch, rng):
    memory = real_world(world, "aws", world.settings, rng)
    monkeypatch.setattr(retrain, "deps", world.deps)
    monkeypatch.setattr(retrain, "time", SimpleNamespace(time=lambda: now))
    sqs = boto3.client("sqs")
    source, dead = (sqs.get_queue_url(QueueName=n)["QueueUrl"] for n in ("opportune-retrain", "opportune-retrain-dlq"))
    wanted, messages, malformed = storm(world, "aws", SIZE, rng)
    sqs.purge_queue(QueueUrl=source)  # what other tests left there
    sqs_drained(sqs, dead)
    redelivered, waiting, kept = 0, 0, {}
    for batches in itertools.count():
        while messages and waiting < BACKLOG:
            entries = [{"Id": str(i), "MessageBody": m} for i, m in enumerate(messages[:10])]
            sqs.send_message_batch(QueueUrl=source, Entries=entries)
            waiting += len(entries)
            del messages[:10]
        batch = sqs.receive_message(
            QueueUrl=source, MaxNumberOfMessages=10, VisibilityTimeout=600, AttributeNames=["All"]
        ).get("Messages")
        if not batch:
            assert waiting == 0, f"{waiting} messages are in the queue and do not come out"
            break
        failures = retrain.handler({"Records": [sqs_record(m) for m in batch]}, CONTEXT)["batchItemFailures"]
        failed = {f["itemIdentifier"] for f in failures}
        entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(batch)]
        again = [e for e, m in zip(entries, batch, strict=True) if m["MessageId"] in failed or rng.random() < DIES]
        if done := [e for e in entries if e not in again]:
            sqs.delete_message_batch(QueueUrl=source, Entries=done)
            waiting -= len(done)
        if again:
            redelivered += len(again)
            hurry = [{**e, "VisibilityTimeout": 0} for e in again]
            sqs.change_message_visibility_batch(QueueUrl=source, Entries=hurry)
        if batches % 20 == 0:
            kept |= sqs_drained(sqs, dead)
    kept |= sqs_drained(sqs, dead)
    check(memory, wanted, kept, malformed)
    assert redelivered > DIES * SIZE / 2


def sqs_drained(sqs, queue):
    """The dead letters, removed: body -> reason."""
    kept = {}
    while found := sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=600, MessageAttributeNames=["All"]
    ).get("Messages"):
        kept |= {m["Body"]: m["MessageAttributes"]["reason"]["StringValue"] for m in found}
        entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(found)]
        sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
    return kept


def sqs_record(message):
    """A received message as Lambda's poller hands it to the function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:opportune-retrain",
        "awsRegion": "us-east-1",
    }


class HostQueue:
    """A Storage Queue as the Functions host uses it."""

    def __init__(self, settings, name):
        encoding = {
            "message_encode_policy": TextBase64EncodePolicy(),
            "message_decode_policy": BinaryBase64DecodePolicy(),
        }
        self._client = QueueClient.from_connection_string(settings.azure_storage_connection, name, **encoding)

    def send(self, text):
        self._client.send_message(text)

    def receive(self):
        """(id, pop receipt, body) of up to 32 messages."""
        pages = self._client.receive_messages(messages_per_page=32, visibility_timeout=600).by_page()
        for message in next(pages, ()):
            yield message.id, message.pop_receipt, message.content

    def delete(self, message_id, receipt):
        self._client.delete_message(message_id, receipt)

    def redeliver(self, message_id, receipt):
        self._client.update_message(message_id, receipt, visibility_timeout=0)

    def drain(self):
        """Everything in it, removed."""
        found = []
        while batch := list(self.receive()):
            for message_id, receipt, body in batch:
                found.append(body)
                self.delete(message_id, receipt)
        return found


def test_over_storage_queue_every_valid_job_starts_once_and_every_malformed_message_is_kept(
    azurite, world, now, monkeypatch, rng
):
    settings = msgspec.structs.replace(azurite, cloud="azure")
    memory = real_world(world, "azure", settings, rng)
    monkeypatch.setattr(azure_queue, "deps", world.deps)
    monkeypatch.setattr(azure_queue, "time", SimpleNamespace(time=lambda: now))
    source, poison = HostQueue(settings, "opportune-retrain"), HostQueue(settings, "opportune-retrain-poison")
    source.drain()
    poison.drain()
    wanted, messages, malformed = storm(world, "azure", SIZE, rng)
    function = azure_queue.blueprint._function_builders[0]._function.get_user_function()
    redelivered, waiting = 0, 0
    while True:
        while messages and waiting < BACKLOG:
            source.send(messages.pop())
            waiting += 1
        if not (batch := list(source.receive())):
            assert waiting == 0, f"{waiting} messages are in the queue and do not come out"
            break
        for message_id, receipt, body in batch:
            try:
                function(func.queue.QueueMessage(id=message_id, body=body))
                dies = rng.random() < DIES
            except UnavailableError:
                dies = True
            redelivered += dies
            if dies:
                source.redeliver(message_id, receipt)
            else:
                source.delete(message_id, receipt)
                waiting -= 1
    kept = {found["body"]: found["reason"] for found in map(json.loads, poison.drain())}
    check(memory, wanted, kept, malformed)
    assert redelivered > DIES * SIZE / 2
