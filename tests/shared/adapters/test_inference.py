"""Requests to endpoints of both clouds, against servers that check the proof and answer as the clouds do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from azure.core.credentials import AccessToken
from botocore.config import Config
from botocore.exceptions import ClientError

from shared.adapters import aws, sigv4
from shared.adapters.azure.credential import azure_credential
from shared.adapters.inference import ATTRIBUTES, CloudInference, TimelyToken
from shared.errors import InvalidInputError, UnavailableError
from shared.settings import Settings

TRACE = {"traceparent": "00-" + "a" * 32 + "-" + "a" * 16 + "-01", "X-Opportune-Timeout": "1.500"}


class Seen(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Answers with `reply`: status, body, headers, seconds to wait."""

    def __init__(self) -> None:
        self.reply: tuple[int, bytes, dict[str, str], float] = (200, b'{"answer": "42"}', {}, 0.0)
        self.seen: list[Seen] = []
        self.url = ""

    def answer(self, asked: Any) -> tuple[int, bytes, dict[str, str]]:
        self.seen.append(Seen(asked.path, {k.lower(): v for k, v in asked.headers.items()}, asked.body))
        if asked.method == "GET":  # a managed identity
            told = {"access_token": "from-entra", "expires_on": int(time.time()) + 3600, "resource": "r"}
            return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}
        status, told, headers, seconds = self.reply
        time.sleep(seconds)
        return status, told, {"Content-Type": "application/json", **headers}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, http_server: Callable[..., Any]) -> Iterator[Server]:
    made = Server()
    with http_server(made.answer) as made.url:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example-secret",
            "AWS_SESSION_TOKEN": "example-session",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": made.url,
            "IDENTITY_ENDPOINT": f"{made.url}/identity",
            "IDENTITY_HEADER": "proof",
        }.items():
            monkeypatch.setenv(name, value)
        aws.client.cache_clear()
        aws.session.cache_clear()
        yield made
        aws.client.cache_clear()
        aws.session.cache_clear()


def sagemaker(server: Server, timeout_s: float = 5.0) -> dict[str, Any]:
    return CloudInference(Settings(), azure_credential()).invoke(
        "sagemaker:opportune-qa", {"question": "why?"}, timeout_s, TRACE
    )


def azureml(server: Server, settings: Settings | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
    client = CloudInference(settings or Settings(), azure_credential())
    return client.invoke(f"azureml:{server.url}/score", {"question": "why?"}, timeout_s, TRACE)


def sdk(server: Server) -> Any:
    """What boto3 itself would do."""
    config = Config(retries={"total_max_attempts": 1})
    return boto3.Session().client("sagemaker-runtime", endpoint_url=server.url, config=config)


def test_sagemaker_gets_the_request_that_its_own_sdk_would_send(server: Server) -> None:
    assert sagemaker(server) == {"answer": "42"}
    attributes = server.seen[0].headers[ATTRIBUTES.lower()]
    sdk(server).invoke_endpoint(
        EndpointName="opportune-qa",
        Body=server.seen[0].body,
        ContentType="application/json",
        Accept="application/json",
        CustomAttributes=attributes,
    )
    ours, theirs = server.seen
    assert (ours.path, ours.body) == (theirs.path, theirs.body)
    for name in ("content-type", "accept", ATTRIBUTES.lower(), "x-amz-security-token"):
        assert ours.headers[name] == theirs.headers[name]
    # The same scope, and signatures that differ only by the second they were made in.
    scopes = [seen.headers["authorization"].split(",")[0] for seen in server.seen]
    assert scopes[0] == scopes[1]
    assert "/eu-west-1/sagemaker/aws4_request" in scopes[0]
    assert json.loads(ours.body) == {"question": "why?"}


def test_trace_and_deadline_reach_the_container_through_sagemaker(server: Server) -> None:
    sagemaker(server)
    attributes = server.seen[0].headers[ATTRIBUTES.lower()]
    assert f"traceparent={TRACE['traceparent']}" in attributes
    assert "X-Opportune-Timeout=1.500" in attributes


def model_error(status: int, message: str) -> tuple[int, bytes, dict[str, str], float]:
    """What the SageMaker runtime answers when the container does not say 2xx."""
    told = {"Code": "ModelError", "Message": "…", "OriginalStatusCode": status, "OriginalMessage": message}
    return 424, json.dumps(told).encode(), {"x-amzn-ErrorType": "ModelError"}, 0.0


def test_a_containers_refusal_is_the_same_error_that_the_sdk_reads(server: Server) -> None:
    server.reply = model_error(400, '{"error": "the question is empty"}')
    with pytest.raises(ClientError) as told:
        sdk(server).invoke_endpoint(EndpointName="opportune-qa", Body=b"{}")
    assert told.value.response["OriginalStatusCode"] == 400, "the SDK knows the field by this name"
    with pytest.raises(InvalidInputError, match="the question is empty"):
        sagemaker(server)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (model_error(503, "{}"), "HTTP 503"),
        (model_error(429, "{}"), "HTTP 429"),
        (model_error(400, "<html>"), "not JSON"),
        ((400, b'{"Message": "Endpoint opportune-qa not found"}', {}, 0.0), "not found"),
        ((403, b'{"Message": "not authorized"}', {}, 0.0), "not authorized"),
        ((424, b"[]", {}, 0.0), "HTTP 424"),
        ((500, b"", {}, 0.0), "HTTP 500"),
    ],
)
def test_whatever_is_not_the_users_fault_lets_the_other_cloud_answer(
    server: Server, reply: tuple[int, bytes, dict[str, str], float], words: str
) -> None:
    server.reply = reply
    with pytest.raises(UnavailableError, match=words) as error:
        sagemaker(server)
    assert "SageMaker endpoint opportune-qa" in str(error.value)


@pytest.mark.parametrize("ask", [sagemaker, azureml])
def test_no_attempt_outlives_its_deadline_and_none_is_repeated(server: Server, ask: Any) -> None:
    ask(server)
    asked = sum(seen.path != "/identity" and bool(seen.body) for seen in server.seen)
    server.reply = (200, b"{}", {}, 5.0)
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        ask(server, timeout_s=0.2)
    assert time.monotonic() - started < 4.0
    assert sum(bool(seen.body) for seen in server.seen) == asked + 1


def test_azure_ml_gets_the_identitys_token(server: Server) -> None:
    assert azureml(server) == {"answer": "42"}
    identity, scored = server.seen
    assert parse_qs(urlsplit(identity.path).query)["resource"] == ["https://ml.azure.com"]
    assert identity.headers["x-identity-header"] == "proof"
    assert (scored.path, scored.headers["authorization"]) == ("/score", "Bearer from-entra")
    assert scored.headers["traceparent"] == TRACE["traceparent"]


def test_a_static_token_spares_the_identity(server: Server) -> None:
    azureml(server, Settings(azureml_token="static"))
    (scored,) = server.seen
    assert scored.headers["authorization"] == "Bearer static"


def test_a_slow_identity_costs_no_more_than_the_caller_has_left_and_serves_the_next_one() -> None:
    asked = []

    class Slow:
        def get_token(self, scope: str) -> Any:
            asked.append(scope)
            time.sleep(1.0)
            return AccessToken("t0", int(time.time()) + 3600)

    token = TimelyToken(Slow(), "https://ml.azure.com/.default")
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(UnavailableError, match=r"no token within 0\.1 s"):
            token.within(0.1)
    assert time.monotonic() - begun < 0.9
    assert token.within(30.0) == "t0"
    assert token.within(0.0) == "t0"
    assert asked == ["https://ml.azure.com/.default"], "the first question was answered late, not asked twice"


def test_a_token_about_to_end_or_refused_is_asked_for_again() -> None:
    answers: list[Any] = [UnavailableError("Microsoft Entra", "down"), AccessToken("t1", int(time.time()) + 60)]

    class Answers:
        def get_token(self, _: str) -> Any:
            told = answers.pop(0) if answers else AccessToken("t2", int(time.time()) + 3600)
            if isinstance(told, Exception):
                raise told
            return told

    token = TimelyToken(Answers(), "s")
    with pytest.raises(UnavailableError, match="down"):
        token.within(5.0)
    assert [token.within(5.0) for _ in range(3)] == ["t1", "t2", "t2"]


def test_what_the_azure_ml_container_says_is_told_apart_from_what_azure_says(server: Server) -> None:
    server.reply = (424, b'{"error": "too long"}', {"ms-azureml-model-error-statuscode": "400"}, 0.0)
    with pytest.raises(InvalidInputError, match="too long"):
        azureml(server)
    server.reply = (424, b"{}", {"ms-azureml-model-error-statuscode": "503"}, 0.0)
    with pytest.raises(UnavailableError, match="HTTP 503"):
        azureml(server)
    server.reply = (401, b'{"message": "token expired"}', {}, 0.0)
    with pytest.raises(UnavailableError, match="token expired") as error:
        azureml(server)
    assert "from-entra" not in str(error.value)


def test_a_plain_address_is_asked_without_any_credential(server: Server) -> None:
    client = CloudInference(Settings(azureml_token="static"), azure_credential())
    client.invoke(f"{server.url}/predict", {}, 5.0, {})
    assert "authorization" not in server.seen[0].headers


def test_without_a_region_or_credentials_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    aws.session.cache_clear()
    with pytest.raises(UnavailableError, match="set AWS_REGION"):
        sigv4.signed("GET", "http://x/", b"", {}, service="aps")
    with pytest.raises(UnavailableError, match="no credentials"):
        sigv4.signed("GET", "http://x/", b"", {}, service="aps", region="eu-west-1")
    aws.session.cache_clear()
