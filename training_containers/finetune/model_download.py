"""Download of model folders: s3://bucket/prefix, azure-blob:container/prefix, https://ACCOUNT.blob.…/container/prefix.

The prefix is that of a model's files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from shared.artifact import MANIFEST
from shared.contracts import ModelManifest, decode
from shared.errors import ContractError, InvalidInputError, ModelError
from shared.settings import Settings
from training_containers.object_store import CHUNK_BYTES, Store, open_store

#: what a model without a manifest consists of; weights in formats that run code on loading stay where they are
_KINDS: Final = (".json", ".safetensors", ".onnx")
_AZURE_HOST: Final = re.compile(r"https://([a-z0-9]{3,24})\.blob\.core\.windows\.net/(.+)")


def is_address(name: str) -> bool:
    """Whether `name` means an object store, not a folder or a name on a hub."""
    return "://" in name or name.startswith("azure-blob:")


def open_at(address: str, env: Mapping[str, str]) -> Store:
    """What lies below `address`. Credentials come from the environment, as for the other parts.

    Raises:
        InvalidInputError: another form of address.
    """
    settings = Settings.from_env(env)
    if re.fullmatch(r"s3://[^/]+/.+", address):
        return open_store(address, settings)
    rest = _azure_path(address, settings)
    if rest is None or "/" not in rest[1].strip("/"):
        raise InvalidInputError(
            f"{address}: not an object address; "
            "write s3://BUCKET/PREFIX, azure-blob:CONTAINER/PREFIX or https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"
        )
    account, path = rest
    if account:
        settings = msgspec.structs.replace(settings, azure_storage_account=account)
    return open_store("azure-blob:" + path.strip("/"), settings)


def _azure_path(address: str, settings: Settings) -> tuple[str, str] | None:
    """(account when the address names one, container/prefix); None when the address is not Azure's."""
    if address.startswith("azure-blob:"):
        return "", address.removeprefix("azure-blob:")
    named = re.search(r"BlobEndpoint=([^;]+)", settings.azure_storage_connection)
    if named and address.startswith(named[1].rstrip("/") + "/"):
        return "", address.removeprefix(named[1].rstrip("/"))
    match = _AZURE_HOST.fullmatch(address)
    return (match[1], match[2]) if match else None


def fetch_model(address: str, folder: Path, env: Mapping[str, str]) -> None:
    """Write the files of the model at `address` into `folder`, in pieces of bounded memory.

    Raises:
        InvalidInputError: no such address, or no model there.
        UnavailableError: the store did not answer.
        ModelError: its manifest cannot be read.
    """
    store = open_at(address, env)
    sizes = {entry.key: entry.size for entry in store.entries("")}
    if "config.json" not in sizes:
        raise InvalidInputError(f"{address}: no config.json below it; this is not a model")
    sealed = {MANIFEST} | _sealed(store, address) if MANIFEST in sizes else None
    for name, size in sizes.items():
        path = PurePosixPath(name)
        wanted = path.suffix in _KINDS if sealed is None else name in sealed
        if wanted and ".." not in path.parts:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("wb") as file:
                while (at := file.tell()) < size and (chunk := store.get_range(name, at, CHUNK_BYTES)):
                    file.write(chunk)


def _sealed(store: Store, address: str) -> set[str]:
    """The files that a manifest vouches for."""
    try:
        return set(decode(ModelManifest, store.get(MANIFEST)).files)
    except ContractError as exc:
        raise ModelError(f"{address}/{MANIFEST}: {exc}") from exc
