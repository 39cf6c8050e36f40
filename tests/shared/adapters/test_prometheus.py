"""Range queries against the real Prometheus, and what happens when there is none."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.processes.supervisor import tool
from shared.adapters.aws.session import AwsSession
from shared.adapters.prometheus import PrometheusMetrics, _Signature
from shared.errors import MetricsUnavailableError
from shared.promql import METRICS

EXPOSED = """# TYPE llm_bleu gauge
llm_bleu{service="qa",cloud="aws",model_version="v1"} 0.75
llm_bleu{service="qa",cloud="azure",model_version="v1"} 0.25
llm_feedback_window_pairs{service="qa",cloud="aws",model_version="v1"} 30
llm_feedback_window_pairs{service="qa",cloud="azure",model_version="v1"} 10
llm_bleu{service="qa",cloud="aws",job_id="qa-1"} 0.99
llm_accuracy{service="qa",cloud="aws",model_version="v1"} 0.5
llm_memory_usage_ratio{service="qa",cloud="aws"} 0.5
llm_request_latency_seconds_sum{service="qa",cloud="aws",model_version="v1"} SUM
llm_request_latency_seconds_count{service="qa",cloud="aws",model_version="v1"} COUNT
llm_bleu{service="other",cloud="aws",model_version="v1"} 0.1
"""


NOTHING = b'{"status": "success", "data": {"result": []}}'


class Always:
    """The same answer to everyone, and what was asked."""

    def __init__(self, status: int = 200, body: bytes = NOTHING) -> None:
        self.told = status, body
        self.seen: list[Any] = []

    def answer(self, asked: Any) -> tuple[int, bytes]:
        self.seen.append(asked)
        return self.told


def scraped(asked: Any) -> tuple[int, bytes, dict[str, str]]:
    """The page of a serving container."""
    requests_so_far = int(time.time() * 10)  # a quarter of a second each
    page = EXPOSED.replace("SUM", str(requests_so_far / 4)).replace("COUNT", str(requests_so_far))
    return 200, page.encode(), {"Content-Type": "text/plain"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, http_server: Callable[..., Any]) -> Iterator[str]:
    """A Prometheus that has scraped a serving container for a few seconds."""
    folder = tmp_path_factory.mktemp("prometheus")
    with http_server(scraped) as target:
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [
                {"job_name": "serving", "static_configs": [{"targets": [target.removeprefix("http://")]}]}
            ],
        }
        path = folder / "prometheus.json"
        path.write_text(json.dumps(config))
        port = free_port()
        process = subprocess.Popen(
            [
                str(tool("prometheus")),
                f"--config.file={path}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 60
            while not _ready(port):
                assert process.poll() is None and time.monotonic() < deadline, "Prometheus did not start"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _ready(port: int) -> bool:
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/-/ready", retries=False, timeout=2).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_samples_of_this_service_over_the_window(prometheus: str) -> None:
    source = PrometheusMetrics(prometheus, "qa")
    deadline = time.monotonic() + 60
    while True:
        now = time.time()
        try:
            window = source.window(now - 3, now, 0.5)
        except MetricsUnavailableError:
            assert time.monotonic() < deadline, "Prometheus did not start"
            time.sleep(0.3)
            continue
        if len(window.series["bleu"].values) >= 3:
            break
        assert time.monotonic() < deadline, "Prometheus scraped nothing"
        time.sleep(0.3)
    # the mean of every labelled answer in both clouds, without the other service and without a training job's score
    assert set(window.series["bleu"].values) == {0.625}
    assert set(window.series["accuracy"].values) == {0.5}
    assert now - window.series["bleu"].timestamps_s[-1] < 2.0
    assert window.series["cpu"].values == ()  # nobody exports it: empty, not zero


def test_each_clouds_latency_and_last_sign_of_life(prometheus: str) -> None:
    source = PrometheusMetrics(prometheus, "qa")
    deadline = time.monotonic() + 60
    while True:
        now = time.time()
        try:
            served = source.served(now, 1.0)
        except MetricsUnavailableError:
            served = {}
        if served and served["aws"].latency_s is not None and served["aws"].seen_s is not None:
            break
        assert time.monotonic() < deadline, "Prometheus scraped nothing"
        time.sleep(0.3)
    assert served["aws"].latency_s == pytest.approx(0.25, rel=0.01)
    assert served["aws"].seen_s == pytest.approx(now, abs=5.0)
    assert "azure" not in served  # not scraped: unknown, neither slow nor fast
    # Ten minutes later it has no latency, but when it was last seen is still known.
    later = source.served(now + 600, 1.0)
    assert later["aws"].latency_s is None
    assert later["aws"].seen_s == pytest.approx(now, abs=5.0)


def test_a_month_is_fetched_in_parts(prometheus: str) -> None:
    now = time.time()
    window = PrometheusMetrics(prometheus, "qa").window(now - 30 * 86_400, now, 60)
    assert window.series["cpu"].values == ()


def test_nobody_answers() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MetricsUnavailableError, match=url):
        PrometheusMetrics(url, "qa", timeout_s=1).window(0, 60, 60)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (503, "{}", "503"),
        (401, "no", "401"),
        (200, "<html>", "JSON"),
        (200, '{"status": "success"}', "not a Prometheus answer"),
        (200, '{"data": {"result": [{"values": 3}]}}', "not a Prometheus answer"),
        (200, '{"data": {"result": [7]}}', "not a Prometheus answer"),
    ],
)
def test_every_bad_answer_is_one_clear_error(
    status: int, body: str, told: str, http_server: Callable[..., Any]
) -> None:
    server = Always(status, body.encode())
    with http_server(server.answer) as url:
        source = PrometheusMetrics(url, "qa", token="secret-token")
        with pytest.raises(MetricsUnavailableError, match=told) as failure:
            source.window(0, 60, 60)
        with pytest.raises(MetricsUnavailableError, match=told):
            source.served(60, 60)
    assert {asked.headers["Authorization"] for asked in server.seen} == {"Bearer secret-token"}
    assert "secret-token" not in str(failure.value)


def test_a_server_that_is_busy_for_a_moment_is_asked_once_more(http_server: Callable[..., Any]) -> None:
    told = iter([(503, b"{}"), (200, NOTHING)])
    seen: list[Any] = []

    def answer(asked: Any) -> tuple[int, bytes]:
        seen.append(asked)
        return next(told)

    with http_server(answer) as url:
        assert PrometheusMetrics(url, "qa").window(0, 60, 60).series["cpu"].values == ()
    assert len(seen) == 2 and seen[0].body == seen[1].body != b""


class Amazon:
    """Answers only a request whose signature it computes itself, from what arrived and the key it shares."""

    secret = "example-secret"

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Any] = []
        self.scopes: list[str] = []

    def answer(self, asked: Any) -> tuple[int, bytes]:
        self.seen.append(asked)
        given = asked.headers["Authorization"] or ""
        scope = re.search(r"Credential=AKIDEXAMPLE/([^,]+), SignedHeaders=([^,]+), Signature=(\w+)", given)
        if not scope:
            return 403, b"{}"
        path, _, query = asked.path.partition("?")
        assert not query, "the query travels in the body"
        lines = [f"{name}:{' '.join((asked.headers[name] or '').split())}" for name in scope.group(2).split(";")]
        body = hashlib.sha256(asked.body).hexdigest()
        canonical = "\n".join(["POST", path, "", *lines, "", scope.group(2), body])
        request = AWSRequest("POST", f"http://{asked.headers['Host']}{asked.path}")
        request.context["timestamp"] = asked.headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials("AKIDEXAMPLE", self.secret), "aps", scope.group(1).split("/")[1])
        self.scopes.append(scope.group(1))
        ok = signer.signature(signer.string_to_sign(request, canonical), request) == scope.group(3)
        return (200, NOTHING) if ok else (403, b"{}")


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch, http_server: Callable[..., Any]) -> Iterator[Amazon]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": Amazon.secret,
        "AWS_SESSION_TOKEN": "example-session",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    made = Amazon()
    with http_server(made.answer) as url:
        made.url = f"{url}/workspaces/ws-1"
        yield made


def test_amazons_prometheus_accepts_the_signature_of_every_query(amazon: Amazon) -> None:
    window = PrometheusMetrics(amazon.url, "qa", auth="sigv4", session=AwsSession()).window(0, 60, 60)
    assert set(window.series) == set(METRICS)
    assert len(amazon.scopes) == 1, "one request for all of them"
    assert {scope.split("/", 1)[1] for scope in amazon.scopes} == {"eu-central-1/aps/aws4_request"}
    assert amazon.seen[0].headers["X-Amz-Security-Token"] == "example-session"


def test_a_wrong_key_is_refused_and_never_shown(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(MetricsUnavailableError, match="403") as failure:
        PrometheusMetrics(amazon.url, "qa", auth="sigv4").window(0, 60, 60)
    assert "secret" not in str(failure.value)


def test_the_workspaces_region_counts_not_the_functions(amazon: Amazon) -> None:
    url = "https://aps-workspaces.us-west-2.amazonaws.com/workspaces/ws-1/api/v1/query"
    request = requests.Request("POST", url, data={"query": "up or vector(1)"}).prepare()
    assert "/us-west-2/aps/aws4_request" in _Signature(AwsSession())(request).headers["Authorization"]


def test_without_an_identity_it_says_what_to_do(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MetricsUnavailableError, match="set AWS_REGION"):
        PrometheusMetrics(amazon.url, "qa", auth="sigv4").window(0, 60, 60)


def test_auth_none_sends_no_token(http_server: Callable[..., Any]) -> None:
    server = Always()
    with http_server(server.answer) as url:
        PrometheusMetrics(url, "qa", token="secret-token", auth="none").window(0, 60, 60)
    assert "Authorization" not in server.seen[0].headers


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, http_server: Callable[..., Any]) -> None:
    server = Always()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http_server(server.answer) as url:
        monkeypatch.setenv("http_proxy", url)
        PrometheusMetrics("http://prometheus.example:9090", "qa").window(0, 60, 60)
    assert server.seen[0].headers["Host"] == "prometheus.example:9090"
