"""Entra tokens against a local server that answers as the identity endpoints do, and as the login service does."""

import json
import sys
import threading
import time
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.pipeline.transport import HttpRequest

from shared.adapters.azure.credential import (
    Credential,
    StaticToken,
    azure_credential,
    federated,
    workspace_credential,
)
from shared.adapters.azure.sending import Transport
from shared.errors import UnavailableError
from shared.settings import Settings

STORAGE = "https://storage.azure.com"
SCOPE = f"{STORAGE}/.default"
IDENTITY_VARIABLES = (
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET", "DEFAULT_IDENTITY_CLIENT_ID"),
    *("AZURE_TENANT_ID", "AZURE_CLIENT_ID"),
)


@pytest.fixture
def env(monkeypatch):
    """A function: variables -> set them; all others that name an identity are gone."""
    for name in IDENTITY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.fixture
def provider(http_server):
    """(address, requests seen, settable answer)."""
    seen, answer = [], {"status": 200, "body": granted("t0")}

    def reply(asked):
        path = urlsplit(asked.path)
        seen.append((path.path, parse_qs(path.query), parse_qs(asked.body.decode()), asked.headers))
        return answer["status"], json.dumps(answer["body"]).encode(), {"Content-Type": "application/json"}

    with http_server(reply) as url:
        yield url, seen, answer


def granted(token, lasts_s=7200):
    ends = int(time.time()) + lasts_s
    return {"access_token": token, "expires_on": str(ends), "resource": STORAGE, "token_type": "Bearer"}


def test_a_function_app_asks_its_managed_identity_once(provider, env):
    url, seen, _ = provider
    env(IDENTITY_ENDPOINT=f"{url}/msi", IDENTITY_HEADER="h3ader", AZURE_CLIENT_ID="c1", AZURE_TENANT_ID="t1")
    credential = azure_credential(lambda: pytest.fail("Azure's own identity comes first"))
    assert [credential.get_token(SCOPE).token for _ in range(2)] == ["t0", "t0"]
    ((path, query, _, headers),) = seen
    assert path == "/msi"
    assert query["resource"] == [STORAGE]
    assert query["client_id"] == ["c1"]
    assert headers["X-Identity-Header"] == "h3ader"


def test_a_token_about_to_end_is_renewed(provider, env):
    url, seen, answer = provider
    env(IDENTITY_ENDPOINT=url, IDENTITY_HEADER="x")
    credential = azure_credential()
    answer["body"] = granted("t1", lasts_s=60)
    assert credential.get_token(SCOPE).token == "t1"
    answer["body"] = granted("t2")
    assert [credential.get_token(SCOPE).token for _ in range(2)] == ["t2", "t2"]
    assert len(seen) == 2


def test_an_azure_ml_container_asks_its_own_endpoint(provider, env):
    url, seen, _ = provider
    env(MSI_ENDPOINT=f"{url}/token", MSI_SECRET="s3cret", DEFAULT_IDENTITY_CLIENT_ID="c2")
    assert azure_credential().get_token(SCOPE).token == "t0"
    assert seen[0][1]["clientid"] == ["c2"]
    assert seen[0][3]["Secret"] == "s3cret"


class Login(Transport):
    """Microsoft's login service, reached without a network."""

    def __init__(self, url):
        super().__init__()
        self._url = url

    def send(self, request, **kwargs):
        path = urlsplit(request.url).path
        assert request.url.startswith("https://login.microsoftonline.com/")
        return super().send(HttpRequest("POST", self._url + path, dict(request.headers), data=request.data), **kwargs)


def aws_identity(audiences):
    """Signs tokens for whom it is told."""

    def token(audience):
        audiences.append(audience)
        return f"signed for {audience}"

    return token


def test_an_aws_function_exchanges_its_aws_token(provider):
    url, seen, answer = provider
    answer["body"] = {"access_token": "t2", "expires_in": 3600, "token_type": "Bearer"}
    audiences = []
    credential = Credential(lambda: federated("tenant-1", "c3", aws_identity(audiences), transport=Login(url)))
    assert [credential.get_token(SCOPE).token for _ in range(2)] == ["t2", "t2"]
    ((path, _, form, _),) = seen
    assert path == "/tenant-1/oauth2/v2.0/token"
    assert form["client_assertion"] == ["signed for api://AzureADTokenExchange"]
    assert form["scope"] == [SCOPE]
    assert form["client_id"] == ["c3"]
    assert audiences == ["api://AzureADTokenExchange"]


def test_tenant_and_client_on_aws_choose_the_exchange(env):
    env(AZURE_TENANT_ID="tenant-1", AZURE_CLIENT_ID="c3")

    def down(_):
        raise UnavailableError("AWS STS", "down")

    with pytest.raises(UnavailableError, match="AWS STS"):
        azure_credential(down).get_token(SCOPE)


def test_a_refusal_says_why_and_shows_no_secret(provider):
    url, _, answer = provider
    answer.update(status=401, body={"error": "x", "error_description": "AADSTS700213: no matching federated identity"})
    credential = Credential(lambda: federated("t", "c", aws_identity([]), transport=Login(url)))
    with pytest.raises(UnavailableError, match="AADSTS700213") as caught:
        credential.get_token(SCOPE)
    assert "signed for" not in str(caught.value)


def test_the_az_command_is_asked_on_a_developers_machine_once(tmp_path, env, monkeypatch):
    told = {"accessToken": "t3", "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4070908800}
    az = tmp_path / "az"
    az.write_text(f"#!/bin/sh\necho \"$@\" >>{tmp_path}/asked\necho '{json.dumps(told)}'\n")
    az.chmod(0o755)
    env(PATH=f"{tmp_path}:/bin:/usr/bin")
    credential = azure_credential()
    assert [credential.get_token(SCOPE).token for _ in range(2)] == ["t3", "t3"]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert f"--resource {STORAGE}" in asked


def test_no_identity_says_what_to_do(env):
    env(IDENTITY_ENDPOINT="http://127.0.0.1:9/x", IDENTITY_HEADER="x")
    with pytest.raises(UnavailableError, match=r"Microsoft Entra.*az login"):
        azure_credential().get_token(SCOPE)


def test_threads_that_need_a_token_at_once_ask_for_one():
    asked = []

    def get_token(scope):
        asked.append(scope)
        time.sleep(0.1)
        return SimpleNamespace(token="t", expires_on=time.time() + 3600)

    credential = Credential(lambda: SimpleNamespace(get_token=get_token))
    threads = [threading.Thread(target=credential.get_token, args=(SCOPE,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [SCOPE]


def test_a_token_that_a_service_challenged_is_asked_for_again():
    asked = []

    def get_token(*scopes, **wanted):
        asked.append(wanted)
        return SimpleNamespace(token=f"t{len(asked)}", expires_on=time.time() + 3600)

    credential = Credential(lambda: SimpleNamespace(get_token=get_token))
    credential.get_token(SCOPE)
    assert credential.get_token(SCOPE, claims="more").token == "t2"
    assert asked == [{}, {"claims": "more"}]


def test_a_token_of_the_settings_is_for_azure_ml_alone():
    credential = azure_credential()
    assert workspace_credential(Settings(), credential) is credential
    told = workspace_credential(Settings(azureml_token="static"), credential)
    assert isinstance(told, StaticToken)
    assert told.get_token("any").token == "static"
    assert told.get_token("any").expires_on > time.time() + 600


def test_a_credential_costs_nothing_before_the_first_token():
    code = (
        "import sys; from shared.adapters.azure.credential import azure_credential; azure_credential(); "
        "print([m for m in ('azure.core', 'azure.identity', 'msal', 'botocore') if m in sys.modules])"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
