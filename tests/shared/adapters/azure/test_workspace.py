"""Requests to Azure ML: who asks, what comes back, and what is asked twice."""

import json

import msgspec
import pytest

from shared.adapters.azure.credential import StaticToken
from shared.adapters.azure.training import AzureMLTraining
from shared.adapters.azure.workspace import Workspace
from shared.errors import NotFoundError, RefusedError, UnavailableError
from shared.settings import Settings


@pytest.fixture
def answering(http_server):
    """A function: the server's answers in their order, the last one again and again -> workspace, requests seen."""
    opened, seen = [], []

    def serve(*answers):
        def reply(asked):
            seen.append(asked)
            status, told = answers[min(len(seen), len(answers)) - 1]
            return status, told if isinstance(told, bytes) else json.dumps(told).encode()

        server = http_server(reply)
        opened.append(server)
        return Workspace(Settings(azureml_url=server.__enter__()), StaticToken("t0k")), seen

    yield serve
    for server in opened:
        server.__exit__(None, None, None)


def test_a_request_names_the_workspace_the_version_and_who_asks(answering):
    workspace, seen = answering((200, {"name": "x"}))
    assert workspace.call("PUT", "jobs/x", {"properties": {}}) == {"name": "x"}
    (asked,) = seen
    assert asked.path == f"{Workspace(Settings(), StaticToken('')).path}/jobs/x?api-version=2024-10-01"
    assert asked.headers["Authorization"] == "Bearer t0k"
    assert json.loads(asked.body) == {"properties": {}}


def test_a_token_is_never_sent_over_the_network_in_the_clear():
    workspace = Workspace(Settings(azureml_url="http://management.example"), StaticToken("t0k"))
    with pytest.raises(UnavailableError, match="non-TLS"):
        workspace.get("jobs/x")


def test_errors_carry_azures_own_words(answering):
    refused = {"error": {"code": "AuthorizationFailed", "message": "the client has no access"}}
    workspace, seen = answering((403, refused), (404, refused), (409, refused), (204, b""), (200, b"<html>"))
    with pytest.raises(RefusedError, match="jobs/x refused: HTTP 403: AuthorizationFailed: the client has"):
        workspace.call("GET", "jobs/x")
    with pytest.raises(NotFoundError, match="jobs/x does not exist"):
        workspace.call("GET", "jobs/x")
    with pytest.raises(UnavailableError, match="HTTP 409"):  # a busy resource, not somebody else's write
        workspace.call("PUT", "jobs/x", {})
    assert workspace.call("POST", "jobs/x/cancel") == {}
    with pytest.raises(UnavailableError, match="not a JSON object"):
        workspace.call("GET", "jobs/x")
    assert len(seen) == 5


def test_a_busy_workspace_is_asked_once_more_but_changed_once(answering):
    workspace, seen = answering((503, {}), (200, {"name": "x"}), (503, {}))
    assert workspace.get("jobs/x") == {"name": "x"}
    with pytest.raises(UnavailableError, match="HTTP 503"):
        workspace.call("PUT", "jobs/x", {})
    assert [asked.method for asked in seen] == ["GET", "GET", "PUT"]


@pytest.mark.xdist_group("clouds")
def test_a_wrong_token_is_told_apart_from_a_missing_job(workspace_settings, credential, objects):
    settings = msgspec.structs.replace(workspace_settings, azureml_token="wrong")
    with pytest.raises(UnavailableError, match="HTTP 401: InvalidAuthenticationToken"):
        AzureMLTraining(settings, credential, objects).status("never-1")


def test_a_workspace_that_does_not_answer_is_unavailable():
    with pytest.raises(UnavailableError, match="Azure ML jobs/x"):
        Workspace(Settings(azureml_url="http://127.0.0.1:9"), StaticToken("t0k")).get("jobs/x")
