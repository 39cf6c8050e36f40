"""The table beyond the contract: keys, pages, and accounts that are named wrongly."""

import pytest

from shared.adapters.azure.documents import TableDocuments
from shared.errors import ConfigurationError
from shared.settings import Settings


@pytest.mark.xdist_group("clouds")
def test_odd_keys_are_found_again(azurite, credential):
    documents = TableDocuments(azurite, credential)
    for key in ("it's 50% ünï", "a+b&c=d"):
        documents.put("odd", key, b"\x00\xff")
        assert documents.get("odd", key).body == b"\x00\xff"
    assert documents.query("odd", since="it's") == [("it's 50% ünï", b"\x00\xff")]


@pytest.mark.xdist_group("clouds")
def test_more_documents_than_a_page_come_in_order(azurite, credential, monkeypatch):
    documents = TableDocuments(azurite, credential)
    for number in range(25):
        documents.put("page", f"{number:03}", b"x")
    monkeypatch.setattr("shared.adapters.azure.documents._PAGE", 10)
    assert [key for key, _ in documents.query("page", since="003", limit=2000)] == [f"{n:03}" for n in range(3, 25)]
    assert [key for key, _ in documents.query("page", limit=12)] == [f"{n:03}" for n in range(12)]


@pytest.mark.parametrize("connection", ["nonsense", "AccountKey=abcd"])
def test_a_connection_string_without_an_account_is_refused_unseen(connection, credential):
    with pytest.raises(ConfigurationError) as caught:
        TableDocuments(Settings(azure_storage_connection=connection), credential).get("a", "b")
    assert connection not in str(caught.value)


def test_no_account_names_the_setting(credential):
    with pytest.raises(ConfigurationError, match="OPPORTUNE_AZURE_STORAGE_ACCOUNT"):
        TableDocuments(Settings(), credential).get("a", "b")
