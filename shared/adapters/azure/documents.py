"""DocumentStore on an Azure table."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.azure.account import storage_client
from shared.adapters.azure.errors import translated
from shared.errors import ConflictError, NotFoundError
from shared.settings import Settings
from shared.values import Document, DocumentKey

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

#: the most entities that the service puts on a page
_PAGE: Final = 1000


class TableDocuments:
    """DocumentStore on one Azure table: PartitionKey is the kind, RowKey the key, the etag is the service's own."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings, self._credential = settings, credential
        self._name = settings.table.replace("-", "")
        self._what = f"Azure table {self._name}"

    @functools.cached_property
    def _table(self) -> Any:
        from azure.data.tables import TableClient

        return storage_client(TableClient, "table", self._name, self._settings, self._credential)

    def get(self, kind: str, key: str) -> Document | None:
        """The document or None."""
        try:
            with translated(self._what):
                entity = self._table.get_entity(kind, key)
        except NotFoundError:
            return None
        return Document(bytes(entity["body"]), entity.metadata["etag"])

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that exist, one by one: a batch of reads holds a single one."""
        found = {key: self.get(*key) for key in keys}
        return {key: document for key, document in found.items() if document is not None}

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port."""
        what = f"{self._what}, {kind} {key}"
        entity = {"PartitionKey": kind, "RowKey": key, "body": body}
        try:
            with translated(what):
                return str(self._write(entity, if_etag, if_absent)["etag"])
        except NotFoundError as exc:
            if if_etag is not None:
                raise ConflictError(f"{what}: deleted meanwhile") from exc
            raise

    def _write(self, entity: dict[str, Any], if_etag: str | None, if_absent: bool) -> Any:
        from azure.core import MatchConditions
        from azure.data.tables import UpdateMode

        if if_absent:
            return self._table.create_entity(entity)
        if if_etag is None:
            return self._table.upsert_entity(entity, mode=UpdateMode.REPLACE)
        unchanged = {"etag": if_etag, "match_condition": MatchConditions.IfNotModified}
        return self._table.update_entity(entity, mode=UpdateMode.REPLACE, **unchanged)

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Ascending by key from `since`."""
        wanted = "PartitionKey eq @kind and RowKey ge @since"
        with translated(self._what):
            entities = self._table.query_entities(
                wanted, parameters={"kind": kind, "since": since}, results_per_page=min(limit, _PAGE)
            )
            return [(entity["RowKey"], bytes(entity["body"])) for entity in itertools.islice(entities, limit)]
