"""Azure storage and queue behind the ports: Table, Blob, Storage Queue, over their REST interface."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

from shared.adapters.azure_rest import StorageAccount
from shared.adapters.entra import Entra
from shared.contracts import TrainingJob, encode
from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.ports import DeadLetter, Document, DocumentKey
from shared.settings import Settings

#: entities come without type annotations; ours are known
_PLAIN: Final = {"Accept": "application/json;odata=nometadata"}
_WRITE: Final = {"Content-Type": "application/json", "Prefer": "return-no-content", **_PLAIN}
_PAGE: Final = 1000


@functools.cache
def entra() -> Entra:
    """The process's tokens: of the managed identity, or of whoever is signed in on a developer's machine."""
    return Entra()


class TableDocuments:
    """DocumentStore on one Azure table: PartitionKey is the kind, RowKey the key, the etag is the service's own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = settings.table.replace("-", "")
        self._what = f"Azure table {self._name}"

    @functools.cached_property
    def _account(self) -> StorageAccount:
        return StorageAccount(self._settings, entra())

    def _entity(self, kind: str, key: str) -> str:
        keys = (value.replace("'", "''") for value in (kind, key))
        return quote("{}(PartitionKey='{}',RowKey='{}')".format(self._name, *keys), safe="(),='")

    def get(self, kind: str, key: str) -> Document | None:
        """The document or None."""
        try:
            answer = self._account.request("table", "GET", self._entity(kind, key), self._what, headers=_PLAIN)
        except NotFoundError:
            return None
        return Document(base64.b64decode(answer.json(self._what)["body"]), answer.headers["etag"])

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that exist, one by one: a batch of reads holds a single one."""
        found = {key: self.get(*key) for key in keys}
        return {key: document for key, document in found.items() if document is not None}

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port."""
        entity = {"PartitionKey": kind, "RowKey": key, "body@odata.type": "Edm.Binary"}
        encoded = json.dumps({**entity, "body": base64.b64encode(body).decode()}).encode()
        what = f"{self._what}, {kind} {key}"
        if if_absent:
            return self._write("POST", self._name, what, encoded)
        try:
            return self._write("PUT", self._entity(kind, key), what, encoded, if_etag)
        except NotFoundError as exc:
            if if_etag is not None:
                raise ConflictError(f"{what}: deleted meanwhile") from exc
            raise

    def _write(self, method: str, path: str, what: str, body: bytes, if_etag: str | None = None) -> str:
        headers = _WRITE if if_etag is None else {**_WRITE, "If-Match": if_etag}
        return self._account.request("table", method, path, what, headers=headers, body=body).headers["etag"]

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Ascending by key from `since`."""
        terms = ("PartitionKey eq '{}' and RowKey ge '{}'").format(*(v.replace("'", "''") for v in (kind, since)))
        found: list[tuple[str, bytes]] = []
        position: dict[str, str] = {}
        while len(found) < limit:
            query = {"$filter": terms, "$top": str(min(limit - len(found), _PAGE)), **position}
            answer = self._account.request("table", "GET", f"{self._name}()", self._what, query=query, headers=_PLAIN)
            entities: list[dict[str, Any]] = answer.json(self._what)["value"]
            found += [(entity["RowKey"], base64.b64decode(entity["body"])) for entity in entities]
            position = {
                name: answer.headers[f"x-ms-continuation-{name.lower()}"]
                for name in ("NextPartitionKey", "NextRowKey")
                if answer.headers.get(f"x-ms-continuation-{name.lower()}")
            }
            if not position:
                break
        return found


class BlobObjects:
    """ObjectStore on one blob container."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._container = settings.container

    @functools.cached_property
    def _account(self) -> StorageAccount:
        return StorageAccount(self._settings, entra())

    def _path(self, key: str) -> str:
        return f"{self._container}/{quote(key)}"

    def get(self, key: str) -> bytes:
        """The blob's bytes; NotFoundError when there is none."""
        return self._account.request("blob", "GET", self._path(key), f"blob {self._container}/{key}").body

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        headers = {"x-ms-blob-type": "BlockBlob"}
        what = f"blob {self._container}/{key}"
        self._account.request("blob", "PUT", self._path(key), what, headers=headers, body=body)

    def list(self, prefix: str) -> Iterable[str]:
        """Keys under the prefix, ascending."""
        what = f"container {self._container}"
        found: list[str] = []
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix}
            query |= {"marker": marker} if marker else {}
            answer = self._account.request("blob", "GET", self._container, what, query=query)
            try:
                root = ElementTree.fromstring(answer.body)
            except ElementTree.ParseError as exc:
                raise UnavailableError(what, "the answer is not XML") from exc
            found += [name.text or "" for name in root.iterfind("./Blobs/Blob/Name")]
            marker = root.findtext("NextMarker") or ""
            if not marker:
                return found

    def uri(self, key: str) -> str:
        """The blob as a path of the workspace's datastore over this container."""
        return f"azureml://datastores/{self._settings.azureml_datastore}/paths/{key}"


class StorageQueue:
    """JobQueue on Storage Queue, base64 as the Functions host expects; the poison queue keeps body and reason."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @functools.cached_property
    def _account(self) -> StorageAccount:
        return StorageAccount(self._settings, entra())

    def _send(self, queue: str, text: str) -> None:
        encoded = base64.b64encode(text.encode()).decode()
        message = f"<QueueMessage><MessageText>{encoded}</MessageText></QueueMessage>"
        headers = {"Content-Type": "application/xml"}
        self._account.request(
            "queue", "POST", f"{queue}/messages", f"Azure queue {queue}", headers=headers, body=message.encode()
        )

    def enqueue(self, job: TrainingJob) -> None:
        """Send the job; a duplicate is harmless because its consumer claims by job_id."""
        self._send(self._settings.queue, encode(job).decode())

    def dead_letter(self, body: str, reason: str) -> None:
        """Storage Queue messages carry no attributes, so the poison message is {"body", "reason"}."""
        self._send(self._settings.poison_queue, json.dumps({"body": body[:32768], "reason": reason[:1024]}))

    def depth(self) -> int:
        """About how many jobs wait."""
        return self._count(self._settings.queue)

    def _count(self, queue: str) -> int:
        """Hidden messages are counted too."""
        answer = self._account.request("queue", "GET", queue, f"Azure queue {queue}", query={"comp": "metadata"})
        return int(answer.headers["x-ms-approximate-messages-count"])

    def dead_letters(self, hide_s: int = 60) -> list[DeadLetter]:
        """The messages kept, hidden for `hide_s`: ours with their reason, the Functions host's without."""
        queue = self._settings.poison_queue
        query = {"numofmessages": "32", "visibilitytimeout": str(hide_s)}
        found: list[DeadLetter] = []
        while True:
            answer = self._account.request("queue", "GET", f"{queue}/messages", f"Azure queue {queue}", query=query)
            try:
                messages = list(ElementTree.fromstring(answer.body.decode("utf-8-sig")).iterfind("QueueMessage"))
            except ElementTree.ParseError as exc:
                raise UnavailableError(f"Azure queue {queue}", "the answer is not XML") from exc
            if not messages:
                return found
            for message in messages:
                fields = {part.tag: part.text or "" for part in message}
                body, reason = _poisoned(fields["MessageText"])
                receipt = f"{fields['MessageId']} {fields['PopReceipt']}"
                found.append(DeadLetter(body, reason, receipt))

    def dead_letter_count(self) -> int:
        """About how many messages are kept, hidden ones among them."""
        return self._count(self._settings.poison_queue)

    def release(self, letter: DeadLetter) -> None:
        """Show a hidden message again."""
        message_id, _, receipt = letter.receipt.partition(" ")
        queue = self._settings.poison_queue
        query = {"popreceipt": receipt, "visibilitytimeout": "0"}
        self._account.request("queue", "PUT", f"{queue}/messages/{message_id}", f"Azure queue {queue}", query=query)

    def forget(self, letter: DeadLetter) -> None:
        """Remove a message that was kept."""
        message_id, _, receipt = letter.receipt.partition(" ")
        queue = self._settings.poison_queue
        self._account.request(
            "queue", "DELETE", f"{queue}/messages/{message_id}", f"Azure queue {queue}", query={"popreceipt": receipt}
        )


def _poisoned(text: str) -> tuple[str, str]:
    """(body, reason) of a poison message: ours, or the original as the Functions host moved it there."""
    try:
        body = base64.b64decode(text, validate=True).decode()
    except ValueError:
        body = text
    try:
        kept = json.loads(body)
    except ValueError:
        kept = None
    if isinstance(kept, dict) and kept.keys() == {"body", "reason"}:
        return str(kept["body"]), str(kept["reason"])
    return body, "delivered too often; the retrain function's log says why"
