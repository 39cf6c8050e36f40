"""The embedded Azure's own side of its storage: Azurite's command, and clients for the host and the job runner.

The use cases reach storage through shared.adapters; what is here plays the cloud itself (the Functions host polls
queues, Azure ML mounts blobs), which no adapter does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from azure.core.exceptions import ResourceExistsError
from azure.data.tables import TableServiceClient  # noqa: TID251
from azure.storage.blob import ContainerClient  # noqa: TID251
from azure.storage.queue import QueueClient  # noqa: TID251

#: Azurite's published development account; it opens nothing but an emulator
ACCOUNT: Final = "devstoreaccount1"
_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONNECTION_VARIABLE: Final = "OPPORTUNE_AZURE_STORAGE_CONNECTION"


def azurite_command(
    binary: Path, blob_port: int, queue_port: int, table_port: int, folder: Path | None = None
) -> list[str]:
    """How to start Azurite: with everything in memory, or in files below `folder` for thousands of messages.

    In memory every message is an extent of its own. Once a minute Azurite removes those of the deleted messages one by
    one, each time sorting the index of the rest, and answers nobody meanwhile: measured 2 s for 1,000 of them, 32 s for
    4,000. In files, messages share a few extents.
    """
    return [
        str(binary),
        "--silent",
        *(["--inMemoryPersistence"] if folder is None else ["--location", str(folder)]),
        "--skipApiVersionCheck",  # today's SDK speaks a newer version than Azurite knows
        "--disableTelemetry",
        *("--blobPort", str(blob_port)),
        *("--queuePort", str(queue_port)),
        *("--tablePort", str(table_port)),
    ]


def connection_string(blob_port: int, queue_port: int, table_port: int) -> str:
    """What SDK clients need to reach Azurite."""
    here = "http://127.0.0.1"
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={_KEY};"
        f"BlobEndpoint={here}:{blob_port}/{ACCOUNT};QueueEndpoint={here}:{queue_port}/{ACCOUNT};"
        f"TableEndpoint={here}:{table_port}/{ACCOUNT};"
    )


@functools.cache
def queue_client(connection: str, queue: str) -> Any:
    """A client of one queue; messages are text as stored."""
    return QueueClient.from_connection_string(connection, queue)


def make(create: Callable[[], Any]) -> None:
    """Create a queue, container or table unless it exists."""
    try:
        create()
    except ResourceExistsError:
        return


def make_storage(connection: str, *, queues: list[str], containers: list[str], tables: list[str]) -> None:
    """Create what the templates create in a real account; safe to repeat."""
    for name in queues:
        make(QueueClient.from_connection_string(connection, name).create_queue)
    for name in containers:
        make(ContainerClient.from_connection_string(connection, name).create_container)
    service = TableServiceClient.from_connection_string(connection)
    for name in tables:
        service.create_table_if_not_exists(name)


class Datastore:
    """The workspace's datastore: azureml://datastores/NAME/paths/KEY and blob URLs, over one account."""

    def __init__(self, connection: str, container: str) -> None:
        self._connection = connection
        self._container = container

    @classmethod
    def from_env(cls) -> Datastore:
        """From OPPORTUNE_AZURE_STORAGE_CONNECTION and OPPORTUNE_CONTAINER."""
        return cls(os.environ[CONNECTION_VARIABLE], os.environ.get("OPPORTUNE_CONTAINER", "opportune"))

    def download(self, uri: str, folder: Path) -> int:
        """Every blob below the address into `folder`; a single blob keeps its name. How many there were."""
        container, prefix = self._place(uri)
        client = ContainerClient.from_connection_string(self._connection, container)
        folder.mkdir(parents=True, exist_ok=True)
        names = [n for n in client.list_blob_names(name_starts_with=prefix) if _below(n, prefix)]
        for name in names:
            relative = name.rpartition("/")[2] if name == prefix else name[len(prefix) :].lstrip("/")
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(client.download_blob(name).readall())
        return len(names)

    def upload(self, folder: Path, uri: str) -> None:
        """Every file below `folder` to the address."""
        container, prefix = self._place(uri)
        client = ContainerClient.from_connection_string(self._connection, container)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            key = f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}"
            client.upload_blob(key, path.read_bytes(), overwrite=True)

    def _place(self, uri: str) -> tuple[str, str]:
        """Container and key prefix of an address."""
        if uri.startswith("azureml://"):
            _, found, key = uri.partition("/paths/")
            if not found:
                raise ValueError(f"{uri} is not azureml://datastores/NAME/paths/KEY")
            return self._container, key
        scheme, _, rest = uri.partition("://")
        host, _, path = rest.partition("/")
        if scheme not in ("http", "https", "wasbs") or not path:
            raise ValueError(f"{uri} is neither an azureml:// nor a blob address")
        # Emulators carry the account in the path, real accounts in the host name.
        path = path.removeprefix(f"{ACCOUNT}/") if ".blob." not in host else path
        container, _, key = path.partition("/")
        return container, key


def _below(name: str, prefix: str) -> bool:
    """jobs/a/model is below jobs/a and jobs/a/, but not jobs/ab."""
    return name == prefix or not prefix or prefix.endswith("/") or name.startswith(f"{prefix}/")
