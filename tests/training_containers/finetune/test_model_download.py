"""A base model by address, from a real S3 interface (moto) and a real blob store (Azurite)."""

import re
from pathlib import Path

import pytest

from functions.retraining.snapshot import Wanted, data_key, take
from shared.adapters.aws.objects import S3Objects
from shared.adapters.aws.session import AwsSession
from shared.adapters.azure.credential import azure_credential
from shared.adapters.azure.objects import BlobObjects
from shared.contracts import FeedbackPair, decode
from shared.deadline import Deadline
from shared.errors import IntegrityError, InvalidInputError
from shared.ports import ObjectStore
from training_containers.finetune.torch_model import load_model, resolve_base
from training_containers.model import artifact
from training_containers.object_store import open_store
from training_containers.serve.feedback_store import FeedbackWriter

pytestmark = pytest.mark.xdist_group("clouds")


def upload(store: ObjectStore, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    store.put(f"{prefix}/pytorch_model.bin", b"a pickle, never to be fetched")


def same(one: Path, other: Path) -> bool:
    return artifact.sha256_of(one / "model.safetensors") == artifact.sha256_of(other / "model.safetensors")


def test_a_model_comes_from_s3(moto, base_model: Path, tmp_path: Path) -> None:
    upload(S3Objects(AwsSession(), "opportune"), base_model, "models/base")
    folder = resolve_base("s3://opportune/models/base", tmp_path)
    assert same(folder, base_model)
    assert not (folder / "pytorch_model.bin").exists()
    load_model(folder)


def test_a_model_comes_from_azure_blobs(azurite, base_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPPORTUNE_AZURE_STORAGE_CONNECTION", azurite.azure_storage_connection)
    upload(BlobObjects(azurite, azure_credential()), base_model, "models/base")
    assert same(resolve_base("azure-blob:opportune/models/base", tmp_path / "short"), base_model)
    endpoint = re.search("BlobEndpoint=([^;]+)", azurite.azure_storage_connection)
    assert endpoint is not None
    assert same(resolve_base(f"{endpoint[1].rstrip('/')}/opportune/models/base", tmp_path / "url"), base_model)


def test_feedback_written_to_azure_blobs_is_training_data(azurite, tmp_path: Path) -> None:
    pairs = [FeedbackPair(question=f"Which is {i}?", answers=("é",), received_s=1e9 + i) for i in range(3)]
    counted = Metrics()
    for cloud in ("aws", "azure"):
        writer = FeedbackWriter(open_store("azure-blob:opportune", azurite), cloud, counted, clock=lambda: 1e9 + 5)
        for pair in pairs[:2] if cloud == "aws" else pairs[1:]:  # one of them came twice
            writer.append(pair)
        writer.close()
    assert counted.pairs == 4
    assert counted.failures == 0
    store = BlobObjects(azurite, azure_credential())
    wanted = Wanted(start_s=1e9, end_s=1e9 + 2, seen_s=0.0, pairs=10, bytes=2**20, new=1)
    taken = take({"azure": store}, "azure", "qa-1", wanted, 1e9 + 5, Deadline(60.0))
    assert {decode(FeedbackPair, line) for line in store.get(data_key("qa-1")).splitlines()} == set(pairs[:2])
    assert taken.skipped == {"stored twice": 1, "outside the window": 1}

    # a store that is not there keeps the pairs, and says so
    writer = FeedbackWriter(open_store("azure-blob:no-such-container/x", azurite), "aws", counted, every_s=3600.0)
    writer.append(pairs[0])
    assert not writer.flush()
    assert (writer.kept, counted.failures) == (1, 1)


class Metrics:
    """What the writer counts."""

    def __init__(self) -> None:
        self.pairs = self.failures = self.lost = 0

    def stored(self, pairs: int) -> None:
        self.pairs += pairs

    def put_failed(self) -> None:
        self.failures += 1

    def dropped(self, pairs: int) -> None:
        self.lost += pairs


def test_a_damaged_or_missing_model_is_refused(moto, base_model: Path, tmp_path: Path) -> None:
    store = S3Objects(AwsSession(), "opportune")
    upload(store, base_model, "models/damaged")
    store.put("models/damaged/config.json", b"{}")
    with pytest.raises(IntegrityError, match=r"config\.json: sha256 is"):
        resolve_base("s3://opportune/models/damaged", tmp_path / "a")
    with pytest.raises(InvalidInputError, match=r"s3://opportune/nowhere: no config\.json below it"):
        resolve_base("s3://opportune/nowhere", tmp_path / "b")


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://bucket", "azure-blob:container", "https://example.org/a/b"])
def test_another_form_of_address_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not an object address; write s3://BUCKET/PREFIX"):
        resolve_base(address, tmp_path)
