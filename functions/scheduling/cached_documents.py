"""A cloud's documents for the length of one tick: what every tick reads comes in one request, and only once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from functions.clouds import Deps
from shared.contracts import Cloud
from shared.ports import CloudServices, Document, DocumentKey, DocumentStore


class Recall:
    """DocumentStore over another one. The documents named `ahead` are read together, when the first is needed.

    Afterwards they are as this tick last saw or wrote them. Somebody else's newer version is noticed where it
    matters: every write of them is conditional, and one that lost is followed by a fresh read.
    """

    def __init__(self, documents: DocumentStore, ahead: Iterable[DocumentKey]) -> None:
        self._documents = documents
        self._ahead = frozenset(ahead)
        self._known: dict[DocumentKey, Document | None] | None = None

    def get(self, kind: str, key: str) -> Document | None:
        """The document or None."""
        wanted = (kind, key)
        if wanted not in self._ahead:
            return self._documents.get(kind, key)
        if self._known is None:
            found = self._documents.get_many(sorted(self._ahead))
            self._known = {name: found.get(name) for name in self._ahead}
        if wanted not in self._known:
            self._known[wanted] = self._documents.get(kind, key)
        return self._known[wanted]

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that exist."""
        return self._documents.get_many(keys)

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port."""
        known = self._known if self._known is not None else {}
        known.pop((kind, key), None)
        etag = self._documents.put(kind, key, body, if_etag=if_etag, if_absent=if_absent)
        if (kind, key) in self._ahead:
            known[kind, key] = Document(body, etag)
        return etag

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """As the other one's."""
        return self._documents.query(kind, since=since, limit=limit)


def recalling(deps: Deps, decision_id: str) -> Deps:
    """The dependencies of one tick, which reads what is asked of each cloud at once."""
    service = deps.settings.service
    everywhere = (("routes", service), ("tally", service), ("control", service))

    def wrapped(cloud: Cloud, services: CloudServices) -> CloudServices:
        ahead = (*everywhere, ("decision", decision_id)) if cloud == deps.settings.cloud else everywhere
        return services._replace(documents=Recall(services.documents, ahead))

    return dataclasses.replace(deps, clouds={cloud: wrapped(cloud, s) for cloud, s in deps.clouds.items()})
