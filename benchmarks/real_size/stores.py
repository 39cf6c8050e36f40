"""Both clouds' storage, each a process of its own: moto, and Azurite with files on the disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3  # noqa: TID251 - plays the deployment
from rich.console import Console

from local.clouds.azure.storage import CONNECTION_VARIABLE, azurite_command, connection_string, make_storage
from local.processes.supervisor import Service, Supervisor, free_port, tcp_ok, tool
from shared.settings import Settings


@contextmanager
def stores(folder: Path) -> Iterator[Settings]:
    """Bucket, container and tables under their default names; this process's environment says where they are."""
    aws, blob, queue, table = (free_port() for _ in range(4))
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        CONNECTION_VARIABLE: connection_string(blob, queue, table),
    }
    moto = [sys.executable, "-m", "benchmarks.real_size.moto_server", "-H", "127.0.0.1", "-p", str(aws)]
    azurite = azurite_command(tool("azurite"), blob, queue, table, folder / "azurite")
    with Supervisor(folder, console=Console(stderr=True), grace_s=1.0) as supervisor:
        supervisor.start(Service("moto", moto, tcp_ok(aws)))
        supervisor.start(Service("azurite", azurite, tcp_ok(table)))
        settings = Settings.from_env(os.environ)
        boto3.client("s3").create_bucket(Bucket=settings.bucket)
        boto3.client("dynamodb").create_table(
            TableName=settings.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("kind", "key")],
            KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "key", "KeyType": "RANGE"}],
        )
        connection = settings.azure_storage_connection
        make_storage(connection, queues=[], containers=[settings.container], tables=[settings.table])
        yield settings
