"""A folder keeps objects as the clouds' stores do."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ConfigurationError, ConflictError, NotFoundError
from shared.settings import Settings
from training_containers.object_store import FolderObjects, open_store


def test_an_object_is_read_whole_in_part_and_only_if_it_changed(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    store.put("a/b", b"0123456789")
    assert (store.get("a/b"), store.get_range("a/b", 3, 4), store.get_range("a/b", 8, 9)) == (
        b"0123456789",
        b"3456",
        b"89",
    )
    found = store.get_tagged("a/b")
    assert found is not None
    assert store.get_tagged("a/b", if_none_match=found.etag) is None
    store.put("a/b", b"other")
    assert store.get_tagged("a/b", if_none_match=found.etag) is not None
    for missing in ("a", "a/b/c", "x"):
        with pytest.raises(NotFoundError):
            store.get(missing)
        with pytest.raises(NotFoundError):
            store.get_range(missing, 0, 1)


def test_a_conditional_write_lets_one_of_two_win(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    first = store.put_tagged("doc", b"1", if_etag=None)
    with pytest.raises(ConflictError):
        store.put_tagged("doc", b"2", if_etag=None)
    second = store.put_tagged("doc", b"2", if_etag=first)
    with pytest.raises(ConflictError):
        store.put_tagged("doc", b"3", if_etag=first)
    assert (store.get("doc"), second != first) == (b"2", True)


def test_a_listing_has_sizes_and_nothing_half_written(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    for key in ("m/b", "m/a/z", "n"):
        store.put(key, key.encode())
    (tmp_path / "m/.c.partial").write_bytes(b"x")
    assert [(e.key, e.size) for e in store.entries("m/")] == [("m/a/z", 5), ("m/b", 3)]
    assert list(store.entries("nowhere/")) == []


@pytest.mark.parametrize("address", ["", "dir:", "/plain/path", "s3://", "gs://bucket", "azure-blob:", "ftp:x"])
def test_another_address_is_refused_with_the_known_forms(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--store is .*allowed: dir:PATH, s3://bucket/prefix, azure-blob:"):
        open_store(address, Settings())


def test_an_address_is_a_bucket_and_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    from moto import mock_aws

    from shared.adapters.aws.objects import S3Objects
    from shared.adapters.aws.session import AwsSession

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        session = AwsSession()
        session.client("s3").create_bucket(Bucket="opportune")
        store = open_store("s3://opportune/data/", Settings())
        store.put("models/m1/x", b"0123")

        assert S3Objects(session, "opportune").get("data/models/m1/x") == b"0123"
        assert [(e.key, e.size) for e in store.entries("models/")] == [("models/m1/x", 4)]
        assert store.get_range("models/m1/x", 1, 2) == b"12"
        found = store.get_tagged("models/m1/x")
        assert found is not None
        assert store.get_tagged("models/m1/x", if_none_match=found.etag) is None
