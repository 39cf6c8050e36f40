"""Hundreds of messages with duplicates, redeliveries, reordering and rubbish, over SQS (moto) and Azurite."""

import base64
import json
import random
from types import SimpleNamespace

import azure.functions as func
import boto3  # noqa: TID251 - plays the cloud that delivers
import msgspec
import pytest
from azure.storage.queue import QueueClient  # noqa: TID251 - plays the host that delivers

from functions import bootstrap
from functions.aws import retrain
from functions.azure import queue as azure_queue
from shared.contracts import FeedbackPair, encode
from shared.errors import UnavailableError
from shared.ports import CloudServices

pytestmark = pytest.mark.xdist_group("clouds")

CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=256, invoked_function_arn="arn:aws:lambda:x", aws_request_id="r"
)
JOBS = 60


class Unreliable:
    """A training service that fails every third time it is asked to start a job, before or after it did."""

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


def real_world(world, cloud, settings, rng):
    """The world with real storage on `cloud`; its training service stays the one in memory, made unreliable."""
    real = bootstrap.cloud_services(cloud, settings)
    memory = world.training(cloud)
    world.clouds = {cloud: CloudServices(cloud, *real[1:4], Unreliable(memory, rng), world.clouds[cloud].host)}
    world.settings = msgspec.structs.replace(settings, min_new_pairs=1, scheduler=cloud)
    pair = FeedbackPair(question="q", answers=("a",), received_s=1_799_999_000.0)
    real.objects.put(f"feedback/{cloud}/20270115T075500-1.jsonl", encode(pair))
    return memory


def storm(job, cloud, rng):
    """Every job three times, and rubbish, in random order. Returns (valid job ids, messages)."""
    valid = [job(cloud=cloud, service=f"{cloud}{n}", job_id=f"{cloud}{n}-1") for n in range(JOBS)]
    rubbish = [f'{{"rubbish": {n}' for n in range(JOBS // 3)]
    messages = [encode(j).decode() for j in valid] * 3 + rubbish
    rng.shuffle(messages)
    return sorted(j.job_id for j in valid), messages, rubbish


@pytest.mark.slow
def test_over_sqs_every_valid_job_starts_once_and_every_malformed_message_is_kept(moto, world, job, now, monkeypatch):
    rng = random.Random(3)
    memory = real_world(world, "aws", world.settings, rng)
    monkeypatch.setattr(retrain, "deps", world.deps)
    monkeypatch.setattr(retrain.time, "time", lambda: now)
    sqs = boto3.client("sqs")
    source, dead = (sqs.get_queue_url(QueueName=n)["QueueUrl"] for n in ("opportune-retrain", "opportune-retrain-dlq"))
    wanted, messages, rubbish = storm(job, "aws", rng)
    for start in range(0, len(messages), 10):
        entries = [{"Id": str(i), "MessageBody": m} for i, m in enumerate(messages[start : start + 10])]
        sqs.send_message_batch(QueueUrl=source, Entries=entries)
    while batch := sqs.receive_message(
        QueueUrl=source, MaxNumberOfMessages=10, VisibilityTimeout=30, AttributeNames=["All"]
    ).get("Messages"):
        records = [
            {
                "messageId": m["MessageId"],
                "receiptHandle": m["ReceiptHandle"],
                "body": m["Body"],
                "attributes": m["Attributes"],
                "messageAttributes": {},
                "md5OfBody": m["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:opportune-retrain",
                "awsRegion": "us-east-1",
            }
            for m in batch
        ]
        failures = retrain.handler({"Records": records}, CONTEXT)["batchItemFailures"]
        failed = {f["itemIdentifier"] for f in failures}
        for m in batch:
            if m["MessageId"] in failed or rng.random() < 0.1:  # Lambda may also die before it deletes
                sqs.change_message_visibility(QueueUrl=source, ReceiptHandle=m["ReceiptHandle"], VisibilityTimeout=0)
            else:
                sqs.delete_message(QueueUrl=source, ReceiptHandle=m["ReceiptHandle"])
    assert sorted(j.job_id for j, _, _ in memory.started) == wanted
    kept = {}
    while found := sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
        "Messages"
    ):
        for m in found:
            kept[m["Body"]] = m["MessageAttributes"]["reason"]["StringValue"]
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=m["ReceiptHandle"])
    assert sorted(kept) == sorted(rubbish)
    assert all("not JSON" in reason for reason in kept.values())


@pytest.mark.slow
def test_over_storage_queue_every_valid_job_starts_once_and_every_malformed_message_is_kept(
    azurite, world, job, now, monkeypatch
):
    rng = random.Random(4)
    memory = real_world(world, "azure", msgspec.structs.replace(azurite, cloud="azure"), rng)
    monkeypatch.setattr(azure_queue, "deps", world.deps)
    monkeypatch.setattr(azure_queue.time, "time", lambda: now)
    source, poison = (
        QueueClient.from_connection_string(azurite.azure_storage_connection, name)
        for name in ("opportune-retrain", "opportune-retrain-poison")
    )
    wanted, messages, rubbish = storm(job, "azure", rng)
    for text in messages:
        source.send_message(base64.b64encode(text.encode()).decode())
    function = azure_queue.blueprint._function_builders[0]._function.get_user_function()
    while batch := list(source.receive_messages(max_messages=16, visibility_timeout=30)):
        for message in batch:
            try:
                function(func.queue.QueueMessage(id=message.id, body=base64.b64decode(message.content)))
            except UnavailableError:
                source.update_message(message, visibility_timeout=0)
                continue
            if rng.random() < 0.1:  # the host may also die before it deletes
                source.update_message(message, visibility_timeout=0)
            else:
                source.delete_message(message)
    assert sorted(j.job_id for j, _, _ in memory.started) == wanted
    kept = {}
    for message in poison.receive_messages():
        found = json.loads(base64.b64decode(message.content))
        kept[found["body"]] = found["reason"]
        poison.delete_message(message)
    assert sorted(kept) == sorted(rubbish)
    assert all("not JSON" in reason for reason in kept.values())
