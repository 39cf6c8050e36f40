"""Real storage for whoever asks: moto as a server in this process, Azurite as a process of its own.

Imported inside the fixtures, so that tests which need neither wait for neither.
"""

# ruff: noqa: TID251 - the fixtures build what the SDKs then find

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shared.settings import Settings


def pytest_configure() -> None:
    """A job in the background of a script ignores Ctrl-C and so would every program that the tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quicken(patch: pytest.MonkeyPatch) -> None:
    """Make moto's server cheap enough for thousands of requests; what it answers stays the same."""
    import moto.sqs.models
    from werkzeug.serving import WSGIRequestHandler

    # Connections stay open as those of AWS do, instead of one and a thread per request; no line per request.
    patch.setattr(WSGIRequestHandler, "protocol_version", "HTTP/1.1")
    patch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # SQS asks for the time about twelve times per message in the queue for each one that it hands out.
    clock = time.time
    patch.setattr(moto.sqs.models, "unix_time", clock)
    patch.setattr(moto.sqs.models, "unix_time_millis", lambda: clock() * 1000.0)


@pytest.fixture(scope="session")
def moto() -> Iterator[None]:
    """AWS: table, bucket and queues exist; the SDK finds it through the environment as in production."""
    import boto3
    from moto.server import ThreadedMotoServer

    from shared.adapters import aws

    patch = pytest.MonkeyPatch()
    _quicken(patch)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
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
    from azure.data.tables import TableServiceClient
    from azure.storage.blob import BlobServiceClient
    from azure.storage.queue import QueueClient
    from rich.console import Console

    from local.azure.storage import azurite_command, connection_string
    from local.supervisor import Service, Supervisor, free_port, tcp_ok, tool
    from shared.settings import Settings

    blob, queue, table = (free_port() for _ in range(3))
    console = Console(stderr=True, force_terminal=False)
    folder = tmp_path_factory.mktemp("azurite")
    with Supervisor(folder, console=console, grace_s=1.0) as supervisor:
        command = azurite_command(tool("azurite"), blob, queue, table, folder / "data")
        supervisor.start(Service("azurite", command, tcp_ok(table)))
        connection = connection_string(blob, queue, table)
        TableServiceClient.from_connection_string(connection).create_table("opportune")
        BlobServiceClient.from_connection_string(connection).create_container("opportune")
        for name in ("opportune-retrain", "opportune-retrain-poison"):
            QueueClient.from_connection_string(connection, name).create_queue()
        yield Settings(azure_storage_connection=connection)
