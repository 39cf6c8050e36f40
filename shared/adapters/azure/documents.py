"""DocumentStore on an Azure table."""

from __future__ import annotations

import functools
import itertools
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.azure.account import storage_client
from shared.adapters.azure.errors import answered
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
        import azure.data.tables as sdk

        return storage_client(sdk.TableClient, "table", self._name, self._settings, self._credential)

    def get(self, kind: str, key: str) -> Document | None:
        """The document or None."""
        found = self._entity(kind, key)
        return Document(_body(found), found.metadata["etag"]) if found is not None else None

    def _entity(self, kind: str, key: str) -> Any:
        """The entity, or None; a table that is missing is an error, as it says nothing about what was in it."""
        try:
            with answered(self._what):
                entity = self._table.get_entity(kind, key)
                _ = entity["PartitionKey"], str(entity.metadata["etag"] or _none())
                return entity
        except NotFoundError as exc:
            if "TableNotFound" in str(exc):
                raise
            return None

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that exist, one by one: a batch of reads holds a single one."""
        found = {key: self.get(*key) for key in keys}
        return {key: document for key, document in found.items() if document is not None}

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port.

        The SDK repeats a write whose answer was lost, and then meets what it wrote itself: `writer` tells that apart.
        """
        what, writer = f"{self._what}, {kind} {key}", secrets.token_hex(8)
        entity = {"PartitionKey": kind, "RowKey": key, "body": body, "writer": writer}
        try:
            with answered(what):
                return str(self._write(entity, if_etag, if_absent)["etag"] or _none())
        except ConflictError:
            found = self._entity(kind, key)
            if found is None or found.get("writer") != writer:
                raise
            return str(found.metadata["etag"])
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
        with answered(self._what):
            entities = self._table.query_entities(
                wanted, parameters={"kind": kind, "since": since}, results_per_page=min(limit, _PAGE)
            )
            return [(entity["RowKey"], _body(entity)) for entity in itertools.islice(entities, limit)]


def _body(entity: Any) -> bytes:
    """The content, empty where another hand left none: one such entity must not hide the others."""
    body = entity.get("body")
    return bytes(body) if isinstance(body, bytes) else str(body or "").encode()


def _none() -> str:
    raise ValueError("it carries no etag")
