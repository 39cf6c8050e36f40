"""ObjectStore on a blob container."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.azure.account import once_more, storage_client
from shared.adapters.azure.errors import answered
from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.settings import Settings
from shared.values import Document, ObjectEntry

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

#: how often a copy that Azure goes on with by itself is looked at
_LOOK_S: Final = 0.25


class BlobObjects:
    """ObjectStore on one blob container; the parts of an object are blocks that are not committed."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings, self._credential = settings, credential
        self._name = settings.container

    @functools.cached_property
    def _container(self) -> Any:
        import azure.storage.blob as sdk

        retries = {"retry_policy": once_more(sdk.LinearRetry)}
        return storage_client(sdk.ContainerClient, "blob", self._name, self._settings, self._credential, **retries)

    def _what(self, key: str) -> str:
        return f"blob {self._name}/{key}"

    def get(self, key: str) -> bytes:
        """The blob's bytes; NotFoundError when there is none."""
        with answered(self._what(key)):
            return bytes(self._container.download_blob(key).readall())

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        with answered(self._what(key)):
            self._container.upload_blob(key, body, overwrite=True)

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None:
        """The blob and its tag; None while it has the tag `if_none_match`."""
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        changed = {"etag": if_none_match, "match_condition": MatchConditions.IfModified} if if_none_match else {}
        with answered(self._what(key)):
            try:
                found = self._container.download_blob(key, **changed)
                return Document(bytes(found.readall()), str(found.properties.etag or _none()))
            except HttpResponseError as exc:
                if exc.status_code != 304:
                    raise
                return None

    def put_tagged(self, key: str, body: bytes, *, if_etag: str | None) -> str:
        """Replace it as it was read, or create it."""
        from azure.core import MatchConditions

        unchanged: dict[str, Any] = {"overwrite": False}
        if if_etag is not None:
            unchanged = {"overwrite": True, "etag": if_etag, "match_condition": MatchConditions.IfNotModified}
        try:
            with answered(self._what(key)):
                written = self._container.get_blob_client(key).upload_blob(body, **unchanged)
                return str(written["etag"] or _none())
        except NotFoundError as exc:
            if "ContainerNotFound" in str(exc):
                raise
            raise ConflictError(f"{self._what(key)}: deleted meanwhile") from exc

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        """What lies under the prefix, ascending, a page at a time; not what is still being copied."""
        with answered(f"container {self._name}"):
            for blob in self._container.list_blobs(name_starts_with=prefix, include=["copy"]):
                if blob.copy.status in (None, "success"):
                    yield ObjectEntry(str(blob.name), int(blob.size), blob.last_modified.timestamp())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on; none beyond the end."""
        from azure.core.exceptions import HttpResponseError

        with answered(self._what(key)):
            try:
                return bytes(self._container.download_blob(key, offset=start, length=length).readall())
            except HttpResponseError as exc:
                if exc.status_code != 416:
                    raise
                return b""

    def copy(self, source_key: str, key: str) -> None:
        """Inside the account, by Azure itself; returns when it is done, which within an account is at once."""
        from azure.core.exceptions import HttpResponseError

        with answered(self._what(source_key), conditional=False):
            target = self._container.get_blob_client(key)
            try:
                target.start_copy_from_url(self._container.get_blob_client(source_key).url)
            except HttpResponseError as exc:
                if getattr(exc, "error_code", "") != "PendingCopyOperation":  # somebody began it a moment ago
                    raise
            while (copy := target.get_blob_properties().copy).status == "pending":
                time.sleep(_LOOK_S)
            if copy.status != "success":
                raise UnavailableError(self._what(key), f"its copy is {copy.status}: {copy.status_description}")

    def parts(self, key: str) -> dict[int, int]:
        """Number and size of the blocks that are not committed."""
        try:
            with answered(self._what(key)):
                _, waiting = self._container.get_blob_client(key).get_block_list("uncommitted")
                return {int(block.id): int(block.size) for block in waiting if str(block.id).isdigit()}
        except NotFoundError as exc:
            if "ContainerNotFound" in str(exc):
                raise
            return {}

    def put_part(self, key: str, number: int, body: bytes) -> None:
        """Upload one block."""
        with answered(self._what(key)):
            self._container.get_blob_client(key).stage_block(_block(number), body)

    def finish_parts(self, key: str, count: int) -> None:
        """Commit the blocks; where one of them is not there, the blob must be there already."""
        from azure.storage.blob import BlobBlock

        there = self.parts(key)
        missing = next((number for number in range(1, count + 1) if number not in there), None)
        if missing is None:
            with answered(self._what(key)):
                blocks = [BlobBlock(_block(number)) for number in range(1, count + 1)]
                self._container.get_blob_client(key).commit_block_list(blocks)
        elif not any(entry.key == key for entry in self.entries(key)):
            raise NotFoundError(f"{self._what(key)}: part {missing} of {count} does not exist")

    def uri(self, key: str) -> str:
        """The blob as a path of the workspace's datastore over this container."""
        return f"azureml://datastores/{self._settings.azureml_datastore}/paths/{key}"


def _block(number: int) -> str:
    """A block's id; all of a blob's must be of one length."""
    return f"{number:06d}"


def _none() -> str:
    raise ValueError("it carries no etag")
