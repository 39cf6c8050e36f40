"""A base model by address, from a real S3 interface (moto) and a real blob store (Azurite)."""

import re
from pathlib import Path

import pytest

from shared.adapters.aws import S3Objects
from shared.adapters.azure import BlobObjects
from shared.errors import IntegrityError, InvalidInputError
from shared.ports import ObjectStore
from training_containers.finetune import artifact
from training_containers.finetune.model import load_model, resolve_base

pytestmark = pytest.mark.xdist_group("clouds")


def upload(store: ObjectStore, folder: Path, prefix: str) -> None:
    for path in folder.iterdir():
        store.put(f"{prefix}/{path.name}", path.read_bytes())
    store.put(f"{prefix}/pytorch_model.bin", b"a pickle, never to be fetched")


def same(one: Path, other: Path) -> bool:
    return artifact.sha256_of(one / "model.safetensors") == artifact.sha256_of(other / "model.safetensors")


def test_a_model_comes_from_s3(moto, base_model: Path, tmp_path: Path) -> None:
    upload(S3Objects("opportune"), base_model, "models/base")
    folder = resolve_base("s3://opportune/models/base", tmp_path)
    assert same(folder, base_model)
    assert not (folder / "pytorch_model.bin").exists()
    load_model(folder)

    artifact.pack(base_model, tmp_path / "model.tar.gz")
    S3Objects("opportune").put("models/m1/model.tar.gz", (tmp_path / "model.tar.gz").read_bytes())
    assert same(resolve_base("s3://opportune/models/m1/model.tar.gz", tmp_path / "packed"), base_model)


def test_a_model_comes_from_azure_blobs(azurite, base_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPPORTUNE_AZURE_STORAGE_CONNECTION", azurite.azure_storage_connection)
    upload(BlobObjects(azurite), base_model, "models/base")
    assert same(resolve_base("azure-blob:opportune/models/base", tmp_path / "short"), base_model)
    endpoint = re.search("BlobEndpoint=([^;]+)", azurite.azure_storage_connection)
    assert endpoint is not None
    assert same(resolve_base(f"{endpoint[1].rstrip('/')}/opportune/models/base", tmp_path / "url"), base_model)


def test_a_damaged_or_missing_model_is_refused(moto, base_model: Path, tmp_path: Path) -> None:
    store = S3Objects("opportune")
    upload(store, base_model, "models/damaged")
    store.put("models/damaged/config.json", b"{}")
    with pytest.raises(IntegrityError, match=r"config\.json: sha256 is"):
        resolve_base("s3://opportune/models/damaged", tmp_path / "a")
    with pytest.raises(InvalidInputError, match=r"s3://opportune/nowhere: no config\.json below it"):
        resolve_base("s3://opportune/nowhere", tmp_path / "b")
    with pytest.raises(InvalidInputError, match=r"nowhere/model\.tar\.gz: there is no such object"):
        resolve_base("s3://opportune/nowhere/model.tar.gz", tmp_path / "c")


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://bucket", "azure-blob:container", "https://example.org/a/b"])
def test_another_form_of_address_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not an object address; write s3://BUCKET/PREFIX"):
        resolve_base(address, tmp_path)
