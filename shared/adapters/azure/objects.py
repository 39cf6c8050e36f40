"""ObjectStore on a blob container."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shared.adapters.azure.account import once_more, storage_client
from shared.adapters.azure.errors import answered
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


class BlobObjects:
    """ObjectStore on one blob container."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings, self._credential = settings, credential
        self._name = settings.container

    @functools.cached_property
    def _container(self) -> Any:
        import azure.storage.blob as sdk

        retries = {"retry_policy": once_more(sdk.LinearRetry)}
        return storage_client(sdk.ContainerClient, "blob", self._name, self._settings, self._credential, **retries)

    def get(self, key: str) -> bytes:
        """The blob's bytes; NotFoundError when there is none."""
        with answered(f"blob {self._name}/{key}"):
            return bytes(self._container.download_blob(key).readall())

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        with answered(f"blob {self._name}/{key}"):
            self._container.upload_blob(key, body, overwrite=True)

    def list(self, prefix: str) -> Iterable[str]:
        """Keys under the prefix, ascending."""
        with answered(f"container {self._name}"):
            return [str(name) for name in self._container.list_blob_names(name_starts_with=prefix)]

    def uri(self, key: str) -> str:
        """The blob as a path of the workspace's datastore over this container."""
        return f"azureml://datastores/{self._settings.azureml_datastore}/paths/{key}"
