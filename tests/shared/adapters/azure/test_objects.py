"""Blobs beyond the contract."""

import pytest

from shared.adapters.azure.objects import BlobObjects
from shared.errors import RefusedError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("clouds")


def test_odd_keys_are_found_again(azurite, credential):
    objects = BlobObjects(azurite, credential)
    for key in ("it's 50% ünï", "a+b&c=d"):
        objects.put(f"odd/{key}.bin", b"")
        assert objects.get(f"odd/{key}.bin") == b""
    assert sorted(objects.list("odd/")) == ["odd/a+b&c=d.bin", "odd/it's 50% ünï.bin"]


def test_a_wrong_key_is_refused_with_the_services_reason(azurite, credential):
    connection = azurite.azure_storage_connection
    wrong = Settings(azure_storage_connection=connection.replace("AccountKey=", "AccountKey=AAAA"))
    with pytest.raises(RefusedError, match="HTTP 403: AuthorizationFailure"):
        BlobObjects(wrong, credential).get("x")
