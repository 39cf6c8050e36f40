import json
import time
from types import SimpleNamespace

import pytest

from shared.adapters.http import HttpInference
from shared.errors import InvalidInputError, UnavailableError, VersionNotLoadedError


@pytest.fixture
def server(http_server):
    """A server that answers as its `reply` says (status, body, seconds) and keeps what it was sent."""
    made = SimpleNamespace(seen=[], reply=(200, b"{}", 0.0))

    def answer(asked):
        made.seen.append(asked)
        status, body, seconds = made.reply
        time.sleep(seconds)
        return status, body

    with http_server(answer) as made.url:
        yield made


def invoke(server, timeout_s=5.0):
    return HttpInference().invoke(f"{server.url}/predict", {"question": "ü"}, timeout_s, {"traceparent": "00-x"})


def test_the_body_and_headers_arrive_and_the_answer_comes_back(server):
    server.reply = (200, b'{"answer": "42"}', 0.0)
    assert invoke(server) == {"answer": "42"}
    (asked,) = server.seen
    assert (asked.path, asked.headers["traceparent"], json.loads(asked.body)) == ("/predict", "00-x", {"question": "ü"})


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (503, b'{"error": "draining"}', UnavailableError, "HTTP 503"),
        (429, b"{}", UnavailableError, "HTTP 429"),
        (200, b"<html>", UnavailableError, "not JSON"),
        (200, b"[1]", UnavailableError, "no object"),
        (404, b"<html>", UnavailableError, "not JSON"),
        (400, b'{"error": "the question is empty"}', InvalidInputError, "the question is empty"),
        (409, b'{"error": "m9 is not loaded"}', VersionNotLoadedError, "has not loaded the version"),
        (409, b"<html>", VersionNotLoadedError, "has not loaded the version"),
        (413, b"{}", InvalidInputError, "HTTP 413"),
    ],
)
def test_what_may_be_retried_elsewhere_is_told_apart_from_what_may_not(server, status, body, error, words):
    server.reply = (status, body, 0.0)
    with pytest.raises(error, match=words):
        invoke(server)
    assert len(server.seen) == 1, "retrying is the router's business"


def test_a_slow_endpoint_is_given_up_in_time(server):
    server.reply = (200, b"{}", 5.0)
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        invoke(server, timeout_s=0.2)
    assert time.monotonic() - begun < 4.0


def test_a_refused_connection_is_unavailable():
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
        HttpInference().invoke("http://127.0.0.1:9/predict", {}, 1.0, {})


def test_connections_are_kept(server):
    client = HttpInference()
    for _ in range(3):
        client.invoke(f"{server.url}/predict", {}, 5.0, {})
    assert len({asked.client for asked in server.seen}) == 1


def test_an_endpoint_is_named_without_its_user():
    with pytest.raises(UnavailableError, match=r"^127\.0\.0\.1:9 ") as failure:
        HttpInference().invoke("http://user:s3cr3t@127.0.0.1:9/predict", {}, 1.0, {})
    assert "s3cr3t" not in str(failure.value)
