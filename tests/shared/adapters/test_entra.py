"""Entra tokens against a local server that answers as the identity endpoints and the login service do."""

import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.adapters.entra import Entra
from shared.errors import UnavailableError

STORAGE = "https://storage.azure.com"


@pytest.fixture
def provider(http_server):
    """(address, requests seen, settable answer)."""
    seen, answer = [], {"status": 200, "body": {"access_token": "t0", "expires_on": str(int(time.time()) + 7200)}}

    def reply(asked):
        path = urlsplit(asked.path)
        time.sleep(answer.get("wait_s", 0.0))
        seen.append((path.path, parse_qs(path.query), parse_qs(asked.body.decode()), asked.headers))
        return answer["status"], json.dumps(answer["body"]).encode()

    with http_server(reply) as url:
        yield url, seen, answer


def test_a_function_app_asks_its_managed_identity_once(provider):
    url, seen, _ = provider
    entra = Entra({"IDENTITY_ENDPOINT": f"{url}/msi", "IDENTITY_HEADER": "h3ader", "AZURE_CLIENT_ID": "c1"})
    assert [entra.token(STORAGE), entra.token(STORAGE)] == ["t0", "t0"]
    ((path, query, _, headers),) = seen
    assert path == "/msi"
    assert query == {"api-version": ["2019-08-01"], "resource": [STORAGE], "client_id": ["c1"]}
    assert headers["X-Identity-Header"] == "h3ader"


def test_a_token_about_to_end_is_renewed(provider):
    url, seen, answer = provider
    answer["body"] = {"access_token": "t1", "expires_on": str(int(time.time()) + 60)}
    entra = Entra({"IDENTITY_ENDPOINT": url, "IDENTITY_HEADER": "x"})
    entra.token(STORAGE)
    entra.token(STORAGE)
    assert len(seen) == 2


def test_an_azure_ml_container_asks_its_own_endpoint(provider):
    url, seen, _ = provider
    entra = Entra({"MSI_ENDPOINT": f"{url}/token", "MSI_SECRET": "s3cret", "DEFAULT_IDENTITY_CLIENT_ID": "c2"})
    assert entra.token(STORAGE) == "t0"
    assert seen[0][1]["clientid"] == ["c2"]
    assert seen[0][3]["Secret"] == "s3cret"


def test_an_aws_function_exchanges_its_aws_token(provider):
    url, seen, answer = provider
    answer["body"] = {"access_token": "t2", "expires_in": 3600}
    env = {"AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "c3"}
    entra = Entra(env, aws_token=lambda audience: f"signed for {audience}", login_url=url)
    assert entra.token(STORAGE) == "t2"
    path, _, form, _ = seen[0]
    assert path == "/tenant-1/oauth2/v2.0/token"
    assert form["client_assertion"] == ["signed for api://AzureADTokenExchange"]
    assert form["scope"] == [f"{STORAGE}/.default"]
    assert form["client_id"] == ["c3"]


def test_a_refusal_says_why_and_shows_no_secret(provider):
    url, _, answer = provider
    answer.update(status=401, body={"error_description": "AADSTS700213: no matching federated identity"})
    entra = Entra({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}, lambda _: "topsecret", url)
    with pytest.raises(UnavailableError, match="AADSTS700213") as caught:
        entra.token(STORAGE)
    assert "topsecret" not in str(caught.value)


def test_the_az_command_is_asked_on_a_developers_machine(tmp_path):
    az = tmp_path / "az"
    az.write_text(
        '#!/bin/sh\n[ "$4" = https://storage.azure.com ] && echo \'{"accessToken": "t3", "expires_on": 9e9}\'\n'
    )
    az.chmod(0o755)
    env = {"PATH": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        assert Entra(env).token(STORAGE) == "t3"


def test_no_identity_says_what_to_do():
    with pytest.raises(UnavailableError, match="az login"):
        Entra({"IDENTITY_ENDPOINT": "http://127.0.0.1:9/x", "IDENTITY_HEADER": "x"}).token(STORAGE)


def test_a_slow_identity_costs_no_more_than_the_caller_has_left_and_serves_the_next_one(provider):
    url, seen, answer = provider
    answer["wait_s"] = 4.0
    entra = Entra({"IDENTITY_ENDPOINT": url, "IDENTITY_HEADER": "x"})
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match=r"no token within 0\.1 s"):
        entra.token(STORAGE, 0.1)
    assert time.monotonic() - begun < 3.0
    assert entra.token(STORAGE, 30.0) == "t0"
    assert len(seen) == 1, "the first question was answered late, not asked twice"
