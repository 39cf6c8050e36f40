"""Download of model folders from object stores: s3://bucket/prefix, azure-blob:container/prefix, https://ACCOUNT.blob.…/container/prefix.

The prefix is that of a model's files, or names its `model.tar.gz`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from shared.artifact import MANIFEST
from shared.contracts import ModelManifest, decode
from shared.errors import ContractError, InvalidInputError, ModelError, NotFoundError
from shared.ports import ObjectStore
from shared.settings import Settings
from training_containers.model.artifact import unpack

#: what a model without a manifest consists of; weights in formats that run code on loading stay where they are
_KINDS: Final = (".json", ".safetensors", ".onnx")
_AZURE_HOST: Final = re.compile(r"https://([a-z0-9]{3,24})\.blob\.core\.windows\.net/(.+)")


def is_address(name: str) -> bool:
    """Whether `name` means an object store, not a folder or a name on a hub."""
    return "://" in name or name.startswith("azure-blob:")


def open_store(address: str, env: Mapping[str, str]) -> tuple[ObjectStore, str]:
    """The store of `address`, and the prefix in it. Credentials come from the environment, as for the other parts.

    Raises:
        InvalidInputError: another form of address.
    """
    settings = Settings.from_env(env)
    if match := re.fullmatch(r"s3://([^/]+)/(.+)", address):
        from shared.adapters.aws.objects import S3Objects
        from shared.adapters.aws.session import AwsSession

        return S3Objects(AwsSession(), match[1]), match[2].strip("/")
    rest = _azure_path(address, settings)
    if rest is None or "/" not in rest[1].strip("/"):
        raise InvalidInputError(
            f"{address}: not an object address; "
            "write s3://BUCKET/PREFIX, azure-blob:CONTAINER/PREFIX or https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"
        )
    from shared.adapters.aws.session import AwsSession
    from shared.adapters.azure.credential import azure_credential
    from shared.adapters.azure.objects import BlobObjects

    account, path = rest
    container, _, prefix = path.strip("/").partition("/")
    changed = {"container": container, **({"azure_storage_account": account} if account else {})}
    here = azure_credential(AwsSession().identity_token)
    return BlobObjects(msgspec.structs.replace(settings, **changed), here), prefix


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
    """Write the model at `address` into `folder`.

    Raises:
        InvalidInputError: no such address, or no model there.
        UnavailableError: the store did not answer.
        ModelError: a model.tar.gz that cannot be used.
    """
    store, prefix = open_store(address, env)
    if prefix.endswith(".tar.gz"):
        try:
            unpack(store.get(prefix), folder)
        except NotFoundError as exc:
            raise InvalidInputError(f"{address}: there is no such object") from exc
        return
    names = {entry.key: entry.key[len(prefix) + 1 :] for entry in store.entries(prefix + "/")}
    if "config.json" not in names.values():
        raise InvalidInputError(f"{address}: no config.json below it; this is not a model")
    sealed = {MANIFEST} | _sealed(store, f"{prefix}/{MANIFEST}") if MANIFEST in names.values() else None
    for key, name in names.items():
        path = PurePosixPath(name)
        wanted = path.suffix in _KINDS if sealed is None else name in sealed
        if wanted and ".." not in path.parts:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(store.get(key))


def _sealed(store: ObjectStore, key: str) -> set[str]:
    """The files that a manifest vouches for."""
    try:
        return set(decode(ModelManifest, store.get(key)).files)
    except ContractError as exc:
        raise ModelError(f"{key}: {exc}") from exc
