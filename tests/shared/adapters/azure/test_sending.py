"""A cloud that does not answer, or asks for patience: nobody waits for it longer than is good for the other one."""

import time
from types import SimpleNamespace

import pytest

from local.clouds.azure.storage import connection_string
from shared.adapters.azure import sending
from shared.adapters.azure.documents import TableDocuments
from shared.adapters.azure.objects import BlobObjects
from shared.adapters.azure.queue import StorageQueue
from shared.adapters.azure.workspace import Workspace
from shared.errors import UnavailableError
from shared.settings import Settings

CALLS = [
    lambda cfg, who: TableDocuments(cfg, who).get("job", "x"),
    lambda cfg, who: TableDocuments(cfg, who).put("job", "x", b"", if_absent=True),
    lambda cfg, who: BlobObjects(cfg, who).get("x"),
    lambda cfg, who: StorageQueue(cfg, who).dead_letter("x", "y"),
    lambda cfg, who: Workspace(cfg, who).get("jobs/x"),
]


def reaching(url):
    """Settings whose account and workspace are at this address."""
    port = int(url.rpartition(":")[2])
    connection = connection_string(port, port, port)
    return Settings(azure_storage_connection=connection, azureml_url=url, azureml_token="t0k")


def unavailable_within(seconds, call, settings, credential):
    begun = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        call(settings, credential)
    assert time.monotonic() - begun < seconds
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS)
def test_a_cloud_that_refuses_connections_is_unavailable_within_seconds(call, credential):
    unavailable_within(8, call, reaching("http://127.0.0.1:9"), credential)


@pytest.mark.parametrize("call", CALLS)
def test_a_cloud_that_never_answers_is_asked_at_most_twice(call, credential, http_server, monkeypatch):
    monkeypatch.setattr(sending, "READ_S", 0.3)
    seen = []

    def silent(asked):
        seen.append(asked)
        time.sleep(1.5)
        return 200, b""

    with http_server(silent) as url:
        unavailable_within(5, call, reaching(url), credential)
    assert 1 <= len(seen) <= 2


@pytest.mark.parametrize("call", CALLS)
def test_a_busy_cloud_is_asked_twice_without_the_patience_it_asks_for(call, credential, http_server):
    seen = []

    def busy(asked):
        seen.append(asked)
        return 503, b"", {"Retry-After": "30", "x-ms-error-code": "ServerBusy"}

    with http_server(busy) as url:
        told = unavailable_within(6, call, reaching(url), credential)
    assert "HTTP 503" in told
    assert len(seen) == 2


def test_an_error_does_not_repeat_the_signature_of_the_address(credential):
    shared = (
        "BlobEndpoint=http://127.0.0.1:9/a;TableEndpoint=http://127.0.0.1:9/a;SharedAccessSignature=sv=1&sig=s3cret"
    )
    for call in CALLS[:3]:
        told = unavailable_within(8, call, Settings(azure_storage_connection=shared), credential)
        assert "s3cret" not in told
        assert "refused" in told


def test_the_limits_are_those_that_the_transport_sends_with():
    config = sending.Transport().connection_config
    assert (config.timeout, config.read_timeout) == (2.0, 20.0)
    assert sending.options()["retry_total"] == 1


def test_an_account_by_name_is_asked_over_tls_with_the_credentials_token(monkeypatch):
    asked, wanted = [], []

    def send(_, request, **__):
        asked.append((request.url, request.headers.get("Authorization")))
        raise sending.requests.ConnectionError("no network here")

    def get_token(*scopes, **_):
        wanted.extend(scopes)
        return SimpleNamespace(token="t1", expires_on=time.time() + 3600)

    monkeypatch.setattr(sending.requests.Session, "send", send)
    who, settings = SimpleNamespace(get_token=get_token), Settings(azure_storage_account="acct")
    for call in (CALLS[0], CALLS[2], CALLS[3]):
        with pytest.raises(UnavailableError):
            call(settings, who)
    hosts = {(url.split("/")[2], url.split(":")[0], token) for url, token in asked}
    assert hosts == {(f"acct.{part}.core.windows.net", "https", "Bearer t1") for part in ("table", "blob", "queue")}
    assert set(wanted) == {"https://storage.azure.com/.default"}
