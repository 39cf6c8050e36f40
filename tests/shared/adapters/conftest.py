"""The same ports over memory, moto (a real server in this process) and Azurite (a real process)."""

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient
from moto.server import ThreadedMotoServer
from rich.console import Console

from local.azure.storage import azurite_command, connection_string
from local.supervisor import Service, Supervisor, free_port, tcp_ok, tool
from shared.adapters import aws
from shared.adapters.azure import BlobObjects, StorageQueue, TableDocuments
from shared.adapters.memory import MemoryDocuments, MemoryObjects, MemoryQueue
from shared.ports import DocumentStore, JobQueue, ObjectStore
from shared.settings import Settings

KINDS = ("memory", "aws", "azure")


class Queue(NamedTuple):
    """A queue under test and a reader of what arrived: bodies, and (body, reason) of the dead."""

    queue: JobQueue
    bodies: Any
    dead: Any


@pytest.fixture(scope="session")
def moto() -> Iterator[None]:
    """AWS: table, bucket and queues exist; the SDK finds it through the environment as in production."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    aws.client.cache_clear()
    boto3.client("dynamodb").create_table(
        TableName="opportune",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("kind", "key")],
        KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "key", "KeyType": "RANGE"}],
    )
    boto3.client("s3").create_bucket(Bucket="opportune")
    for name in ("opportune-retrain", "opportune-retrain-dlq"):
        boto3.client("sqs").create_queue(QueueName=name)
    yield
    server.stop()
    aws.client.cache_clear()
    patch.undo()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Azure storage: table, container and queues exist."""
    blob, queue, table = (free_port() for _ in range(3))
    console = Console(stderr=True, force_terminal=False)
    with Supervisor(tmp_path_factory.mktemp("azurite"), console=console, grace_s=1.0) as supervisor:
        supervisor.start(Service("azurite", azurite_command(tool("azurite"), blob, queue, table), tcp_ok(table)))
        connection = connection_string(blob, queue, table)
        with contextlib.suppress(ResourceExistsError):
            TableServiceClient.from_connection_string(connection).create_table("opportune")
        BlobServiceClient.from_connection_string(connection).create_container("opportune")
        for name in ("opportune-retrain", "opportune-retrain-poison"):
            QueueClient.from_connection_string(connection, name).create_queue()
        yield Settings(azure_storage_connection=connection)


@pytest.fixture(params=KINDS)
def documents(request: pytest.FixtureRequest) -> DocumentStore:
    if request.param == "memory":
        return MemoryDocuments()
    if request.param == "aws":
        request.getfixturevalue("moto")
        return aws.DynamoDocuments("opportune", 90.0, lambda: 1_800_000_000.0)
    return TableDocuments(request.getfixturevalue("azurite"))


@pytest.fixture(params=KINDS)
def objects(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjects()
    if request.param == "aws":
        request.getfixturevalue("moto")
        return aws.S3Objects("opportune")
    return BlobObjects(request.getfixturevalue("azurite"))


@pytest.fixture(params=KINDS)
def queue(request: pytest.FixtureRequest) -> Queue:
    if request.param == "memory":
        memory = MemoryQueue()
        return Queue(memory, lambda: memory.messages, lambda: memory.dead)
    if request.param == "aws":
        request.getfixturevalue("moto")
        return Queue(
            aws.SqsQueue("opportune-retrain", "opportune-retrain-dlq"),
            lambda: [m["Body"] for m in _drain("opportune-retrain")],
            lambda: [
                (m["Body"], m["MessageAttributes"]["reason"]["StringValue"]) for m in _drain("opportune-retrain-dlq")
            ],
        )
    settings: Settings = request.getfixturevalue("azurite")

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

    return Queue(StorageQueue(settings), lambda: texts("opportune-retrain"), dead)


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


@pytest.fixture
def here() -> Path:
    return Path(__file__).parent
