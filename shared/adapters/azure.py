"""Azure storage and queue behind the ports: Table, Blob, Storage Queue. The SDK is imported at the first call."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from shared.contracts import TrainingJob, encode
from shared.errors import ConfigurationError, ConflictError, NotFoundError, UnavailableError
from shared.ports import Document
from shared.settings import Settings


@functools.cache
def credential() -> Any:
    """The managed identity (or, on a developer's machine, whoever is signed in)."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(exclude_interactive_browser_credential=True)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn SDK errors about `what` into this project's."""
    from azure.core import exceptions

    try:
        yield
    except (exceptions.ResourceExistsError, exceptions.ResourceModifiedError) as exc:
        raise ConflictError(f"{what}: somebody else was first") from exc
    except exceptions.ResourceNotFoundError as exc:
        raise NotFoundError(f"{what} does not exist") from exc
    except exceptions.AzureError as exc:
        raise UnavailableError(what, str(exc).partition("\n")[0]) from exc


class _Account:
    """Builds SDK clients for one storage account, by connection string or identity."""

    #: short waits: a function that hangs on one cloud could not use the other
    _WAITS: ClassVar = {
        "connection_timeout": 2,
        "read_timeout": 20,
        "retry_total": 1,
        "initial_backoff": 1,  # blobs and queues would wait for 15 s before the first retry
    }

    def __init__(self, settings: Settings) -> None:
        self._connection = settings.azure_storage_connection
        self._account = settings.azure_storage_account

    def client(self, kind: Any, service: str, **names: str) -> Any:
        """A client of class `kind` for `service` (table, blob, queue)."""
        if self._connection:
            return kind.from_connection_string(self._connection, **names, **self._WAITS)
        if not self._account:
            raise ConfigurationError(
                "OPPORTUNE_AZURE_STORAGE_ACCOUNT", None, "a storage account's name, or set …_AZURE_STORAGE_CONNECTION"
            )
        url = f"https://{self._account}.{service}.core.windows.net"
        key = {"table": "endpoint", "blob": "account_url", "queue": "account_url"}[service]
        return kind(**{key: url}, **names, credential=credential(), **self._WAITS)


class TableDocuments:
    """DocumentStore on one Azure table: PartitionKey is the kind, RowKey the key, the etag is the service's own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._what = f"Azure table {settings.table}"

    @functools.cached_property
    def _table(self) -> Any:
        from azure.data.tables import TableClient

        return _Account(self._settings).client(TableClient, "table", table_name=self._settings.table)

    def get(self, kind: str, key: str) -> Document | None:
        """The document or None."""
        try:
            with translated(self._what):
                entity = self._table.get_entity(kind, key)
        except NotFoundError:
            return None
        return Document(bytes(entity["body"]), entity.metadata["etag"])

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port."""
        from azure.core import MatchConditions
        from azure.data.tables import UpdateMode

        entity = {"PartitionKey": kind, "RowKey": key, "body": body}
        try:
            with translated(f"{self._what}, {kind} {key}"):
                if if_absent:
                    answer = self._table.create_entity(entity)
                elif if_etag is not None:
                    answer = self._table.update_entity(
                        entity, mode=UpdateMode.REPLACE, etag=if_etag, match_condition=MatchConditions.IfNotModified
                    )
                else:
                    answer = self._table.upsert_entity(entity, mode=UpdateMode.REPLACE)
        except NotFoundError as exc:
            if if_etag is not None:
                raise ConflictError(f"{self._what}, {kind} {key}: deleted meanwhile") from exc
            raise
        return str(answer["etag"])

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Ascending by key from `since`."""
        with translated(self._what):
            entities = self._table.query_entities(
                "PartitionKey eq @kind and RowKey ge @since",
                parameters={"kind": kind, "since": since},
                results_per_page=min(limit, 1000),
            )
            found: list[tuple[str, bytes]] = []
            for entity in entities:
                found.append((entity["RowKey"], bytes(entity["body"])))
                if len(found) == limit:
                    break
        return found


class BlobObjects:
    """ObjectStore on one blob container."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @functools.cached_property
    def _container(self) -> Any:
        from azure.storage.blob import ContainerClient

        return _Account(self._settings).client(ContainerClient, "blob", container_name=self._settings.container)

    def get(self, key: str) -> bytes:
        """The blob's bytes; NotFoundError when there is none."""
        with translated(f"blob {self._settings.container}/{key}"):
            return bytes(self._container.download_blob(key).readall())

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        with translated(f"blob {self._settings.container}/{key}"):
            self._container.upload_blob(key, body, overwrite=True)

    def list(self, prefix: str) -> Iterable[str]:
        """Keys under the prefix, ascending."""
        with translated(f"container {self._settings.container}"):
            return [str(name) for name in self._container.list_blob_names(name_starts_with=prefix)]

    def uri(self, key: str) -> str:
        """The blob as a path of the workspace's datastore over this container."""
        return f"azureml://datastores/{self._settings.azureml_datastore}/paths/{key}"


class StorageQueue:
    """JobQueue on Storage Queue, base64 as the Functions host expects; the poison queue keeps body and reason."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def _send(self, queue: str, text: str) -> None:
        from azure.storage.queue import QueueClient

        encoded = base64.b64encode(text.encode()).decode()
        with translated(f"Azure queue {queue}"):
            _Account(self._settings).client(QueueClient, "queue", queue_name=queue).send_message(encoded)

    def enqueue(self, job: TrainingJob) -> None:
        """Send the job; a duplicate is harmless because its consumer claims by job_id."""
        self._send(self._settings.queue, encode(job).decode())

    def dead_letter(self, body: str, reason: str) -> None:
        """Storage Queue messages carry no attributes, so the poison message is {"body", "reason"}."""
        self._send(self._settings.poison_queue, json.dumps({"body": body[:32768], "reason": reason[:1024]}))
