"""Blobs beyond the contract."""

import datetime as dt
import time
from types import SimpleNamespace

import pytest
from azure.storage.blob import BlobClient

from shared.adapters.azure import sending
from shared.adapters.azure.objects import BlobObjects
from shared.errors import RefusedError, UnavailableError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("clouds")

NOW = dt.datetime.now(dt.UTC)


def test_odd_keys_are_found_again(azurite, credential):
    objects = BlobObjects(azurite, credential)
    for key in ("it's 50% ünï", "a+b&c=d"):
        objects.put(f"odd/{key}.bin", b"")
        assert objects.get(f"odd/{key}.bin") == b""
    assert sorted(entry.key for entry in objects.entries("odd/")) == ["odd/a+b&c=d.bin", "odd/it's 50% ünï.bin"]


def test_a_wrong_key_is_refused_with_the_services_reason(azurite, credential):
    connection = azurite.azure_storage_connection
    wrong = Settings(azure_storage_connection=connection.replace("AccountKey=", "AccountKey=AAAA"))
    with pytest.raises(RefusedError, match="HTTP 403: AuthorizationFailure"):
        BlobObjects(wrong, credential).get("x")


def test_a_copy_that_azure_still_goes_on_with_is_waited_for_and_not_listed(azurite, credential, monkeypatch):
    objects = BlobObjects(azurite, credential)
    objects.put("slow/a", b"weights")
    objects.copy("slow/a", "slow/b")
    states = ["pending", "pending", "success"]
    real = BlobClient.get_blob_properties

    def properties(self, **options):
        found = real(self, **options)
        found.copy.status = states.pop(0)
        return found

    monkeypatch.setattr(BlobClient, "get_blob_properties", properties)
    objects.copy("slow/a", "slow/b")
    assert states == []
    states[:] = ["failed"]
    with pytest.raises(UnavailableError, match="its copy is failed"):
        objects.copy("slow/a", "slow/b")
    pending = SimpleNamespace(name="slow/c", copy=SimpleNamespace(status="pending"))
    listed = [pending, SimpleNamespace(name="slow/a", size=7, last_modified=NOW, copy=SimpleNamespace(status=None))]
    monkeypatch.setattr(objects._container, "list_blobs", lambda **_: iter(listed))
    assert [entry.key for entry in objects.entries("slow/")] == ["slow/a"]


def test_an_account_by_identity_copies_by_it_too(credential, monkeypatch):
    """The address of the source carries no signature; the account is asked with the token."""
    asked = []

    def send(_, request, **__):
        asked.append((request.headers.get("x-ms-copy-source"), request.headers.get("Authorization")))
        raise sending.requests.ConnectionError("no network here")

    monkeypatch.setattr(sending.requests.Session, "send", send)
    token = SimpleNamespace(get_token=lambda *_, **__: SimpleNamespace(token="t1", expires_on=time.time() + 3600))
    with pytest.raises(UnavailableError):
        BlobObjects(Settings(azure_storage_account="acct"), token).copy("jobs/a", "models/a")
    assert set(asked) == {("https://acct.blob.core.windows.net/opportune/jobs/a", "Bearer t1")}
