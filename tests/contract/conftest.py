"""The same ports over memory, moto (a real server in this process) and Azurite (a real process)."""

import base64
import json
from typing import Any, NamedTuple

import boto3
import pytest
from azure.storage.queue import QueueClient

from shared.adapters.aws.documents import DynamoDocuments
from shared.adapters.aws.objects import S3Objects
from shared.adapters.aws.queue import SqsQueue
from shared.adapters.aws.session import AwsSession
from shared.adapters.azure.credential import azure_credential
from shared.adapters.azure.documents import TableDocuments
from shared.adapters.azure.objects import BlobObjects
from shared.adapters.azure.queue import StorageQueue
from shared.ports import DocumentStore, JobQueue, ObjectStore
from shared.settings import Settings
from tests.fakes import MemoryDocuments, MemoryObjects, MemoryQueue

KINDS = ("memory", "aws", "azure")


class Queue(NamedTuple):
    """A queue under test and a reader of what arrived: bodies, and (body, reason) of the dead."""

    queue: JobQueue
    bodies: Any
    dead: Any


@pytest.fixture(params=KINDS)
def documents(request: pytest.FixtureRequest) -> DocumentStore:
    if request.param == "memory":
        return MemoryDocuments()
    if request.param == "aws":
        request.getfixturevalue("moto")
        return DynamoDocuments(AwsSession(), "opportune", 90.0, lambda: 1_800_000_000.0)
    return TableDocuments(request.getfixturevalue("azurite"), azure_credential())


@pytest.fixture(params=KINDS)
def objects(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjects()
    if request.param == "aws":
        request.getfixturevalue("moto")
        return S3Objects(AwsSession(), "opportune")
    return BlobObjects(request.getfixturevalue("azurite"), azure_credential())


@pytest.fixture(params=KINDS)
def queue(request: pytest.FixtureRequest) -> Queue:
    if request.param == "memory":
        memory = MemoryQueue()
        return Queue(memory, lambda: memory.messages, lambda: memory.dead)
    if request.param == "aws":
        request.getfixturevalue("moto")
        return Queue(
            SqsQueue(AwsSession(), "opportune-retrain", "opportune-retrain-dlq"),
            lambda: [m["Body"] for m in _drain("opportune-retrain")],
            lambda: [
                (m["Body"], m["MessageAttributes"]["reason"]["StringValue"]) for m in _drain("opportune-retrain-dlq")
            ],
        )
    settings: Settings = request.getfixturevalue("azurite")
    for name in ("opportune-retrain", "opportune-retrain-poison"):  # other tests of this worker used them too
        QueueClient.from_connection_string(settings.azure_storage_connection, name).clear_messages()

    def texts(name: str) -> list[str]:
        client = QueueClient.from_connection_string(settings.azure_storage_connection, name)
        found = []
        for message in client.receive_messages():
            found.append(base64.b64decode(message.content).decode())
            client.delete_message(message)
        return found

    def dead() -> list[tuple[str, str]]:
        kept = [json.loads(text) for text in texts("opportune-retrain-poison")]
        return [(k["body"], k["reason"]) for k in kept]

    return Queue(StorageQueue(settings, azure_credential()), lambda: texts("opportune-retrain"), dead)


def _drain(name: str) -> list[Any]:
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found: list[Any] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
        "Messages"
    ):
        for message in messages:
            found.append(message)
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found
