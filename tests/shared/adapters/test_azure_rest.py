"""The storage requests against Azurite, which checks every signature."""

import pytest

from shared.adapters.azure import BlobObjects, TableDocuments
from shared.adapters.azure_rest import StorageAccount
from shared.adapters.entra import Entra
from shared.errors import ConfigurationError, UnavailableError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("clouds")


def test_odd_keys_are_signed_and_found_again(azurite):
    documents, objects = TableDocuments(azurite), BlobObjects(azurite)
    for key in ("it's 50% ünï", "a+b&c=d"):
        documents.put("odd", key, b"\x00\xff")
        assert documents.get("odd", key).body == b"\x00\xff"
        objects.put(f"odd/{key}.bin", b"")
        assert objects.get(f"odd/{key}.bin") == b""
    assert sorted(objects.list("odd/")) == ["odd/a+b&c=d.bin", "odd/it's 50% ünï.bin"]


def test_more_documents_than_a_page_come_in_order(azurite):
    documents = TableDocuments(azurite)
    for number in range(25):
        documents.put("page", f"{number:03}", b"x")
    account, plain = StorageAccount(azurite, Entra({})), {"Accept": "application/json;odata=nometadata"}
    query = {"$filter": "PartitionKey eq 'page'", "$top": "10"}
    first = account.request("table", "GET", "opportune()", "t", query=query, headers=plain)
    assert "x-ms-continuation-nextrowkey" in first.headers, "the service pages, so the next line tests something"
    assert [key for key, _ in documents.query("page", since="003", limit=2000)] == [f"{n:03}" for n in range(3, 25)]


def test_a_wrong_key_is_refused_with_the_services_reason(azurite):
    connection = azurite.azure_storage_connection
    wrong = Settings(azure_storage_connection=connection.replace("AccountKey=", "AccountKey=AAAA"))
    with pytest.raises(UnavailableError, match="HTTP 403: AuthorizationFailure"):
        BlobObjects(wrong).get("x")


@pytest.mark.parametrize("connection", ["nonsense", "AccountKey=abcd"])
def test_a_connection_string_without_an_account_is_refused_unseen(connection):
    with pytest.raises(ConfigurationError) as caught:
        TableDocuments(Settings(azure_storage_connection=connection)).get("a", "b")
    assert connection not in str(caught.value)


def test_an_account_by_name_is_asked_with_an_identity():
    account = StorageAccount(Settings(azure_storage_account="acct"), Entra({}))
    assert account.url("queue") == "https://acct.queue.core.windows.net"


def test_no_account_names_the_setting():
    with pytest.raises(ConfigurationError, match="OPPORTUNE_AZURE_STORAGE_ACCOUNT"):
        StorageAccount(Settings(), Entra({}))
