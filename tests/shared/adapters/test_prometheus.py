"""Range queries against the real Prometheus, and what happens when there is none."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from shared.contracts import MetricWindow, Series
from shared.errors import ConfigurationError, MetricsUnavailableError
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


#: of more services, by the path they are scraped at
PAGES = {
    # the Prometheus operator's own label is in the way of the page's, see OPERATOR
    "/operator": """llm_cpu_utilisation_ratio{service="op",cloud="aws"} 0.5
llm_requests_total{service="op",cloud="aws"} 1
""",
    "/slow": """llm_cpu_utilisation_ratio{service="slow",cloud="aws"} 0.5
llm_requests_total{service="slow",cloud="aws",status="200"} 1
llm_request_latency_seconds_sum{service="slow",cloud="aws"} 1
llm_request_latency_seconds_count{service="slow",cloud="aws"} 1
""",
    "/idle": """llm_cpu_utilisation_ratio{service="idle",cloud="aws"} 0.5
llm_requests_total{service="idle",cloud="aws",status="200"} 7
llm_request_latency_seconds_sum{service="idle",cloud="aws"} 3
llm_request_latency_seconds_count{service="idle",cloud="aws"} 7
llm_bleu{service="idle",cloud="aws",job="opportune-training",job_id="idle-1"} 0.9
""",
    "/new": """llm_cpu_utilisation_ratio{service="new",cloud="aws"} 0.5
llm_memory_usage_ratio{service="new",cloud="aws"} 0.5
""",
    "/gone": """llm_cpu_utilisation_ratio{service="gone",cloud="aws"} 0.5
""",
}
#: what a job has beyond the rest
SCRAPED: dict[str, dict[str, Any]] = {"/slow": {"scrape_interval": "1s"}, "/idle": {"honor_labels": True}}
GONE = {"asked": 0}
OPERATOR = {"service": "opportune-serving"}


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
    """The page of a serving container; one of them ends after its first seconds."""
    if asked.path in PAGES:
        GONE["asked"] += asked.path == "/gone"
        status = 503 if asked.path == "/gone" and GONE["asked"] > 8 else 200
        return status, PAGES[asked.path].encode(), {"Content-Type": "text/plain"}
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
                {"job_name": "serving", "static_configs": [{"targets": [target.removeprefix("http://")]}]},
                *(
                    {
                        "job_name": path[1:],
                        "metrics_path": path,
                        "static_configs": [
                            {
                                "targets": [target.removeprefix("http://")],
                                "labels": OPERATOR if path == "/operator" else {},
                            }
                        ],
                        **SCRAPED.get(path, {}),
                    }
                    for path in PAGES
                ),
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


# --- never longer than its time


@contextmanager
def dripping(every_s: float) -> Iterator[str]:
    """A server that sends its answer byte by byte, for ever."""
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            while not over.wait(every_s):
                connection.sendall(b" ")

    def listen(door: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=listen, args=(door,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            over.set()
            door.shutdown(socket.SHUT_RDWR)


def asked_in_vain(url: str, told: str, timeout_s: float = 1.0) -> float:
    """The longest that any of the three questions took, each without an answer."""
    source = PrometheusMetrics(url, "qa", timeout_s=timeout_s)
    longest = 0.0
    for ask in (lambda: source.window(0, 60, 60), lambda: source.served(60, 60)):
        begun = time.monotonic()
        with pytest.raises(MetricsUnavailableError, match=told):
            ask()
        longest = max(longest, time.monotonic() - begun)
    begun = time.monotonic()
    empty = MetricWindow(service="qa", start_s=0, end_s=60, step_s=60, series={"cpu": Series((), ())})
    assert source.explained(empty) == empty
    return max(longest, time.monotonic() - begun)


@pytest.mark.parametrize(("status", "after"), [(503, "20"), (429, "15"), (502, "Fri, 31 Dec 2100 00:00:00 GMT")])
def test_a_server_that_says_retry_after_is_not_waited_for(
    status: int, after: str, http_server: Callable[..., Any]
) -> None:
    with http_server(lambda _: (status, b"{}", {"Retry-After": after})) as url:
        assert asked_in_vain(url, f"HTTP {status}") < 1.5


def test_an_answer_that_drips_is_given_up_when_the_time_is_over() -> None:
    with dripping(0.3) as url:
        assert asked_in_vain(url, r"no whole answer within 1\.0 s") < 2.0


def test_the_time_is_for_both_tries_together(http_server: Callable[..., Any]) -> None:
    def answer(_: Any) -> tuple[int, bytes]:
        time.sleep(0.7)
        return 503, b"{}"

    with http_server(answer) as url:
        assert asked_in_vain(url, "no whole answer") < 1.5


def test_a_window_of_many_parts_is_bounded_as_a_whole(http_server: Callable[..., Any]) -> None:
    seen = []

    def answer(asked: Any) -> tuple[int, bytes]:
        seen.append(asked)
        time.sleep(0.15)
        return 200, NOTHING

    with http_server(answer) as url:
        begun = time.monotonic()
        with pytest.raises(MetricsUnavailableError, match="no whole answer"):
            PrometheusMetrics(url, "qa", timeout_s=0.2).window(0, 60 * 10_000 * 30, 60)
        assert time.monotonic() - begun < 12 * 0.2 + 1.0
    assert 5 < len(seen) < 30


# --- user and password in the address


def test_user_and_password_of_the_address_are_used_and_never_shown(http_server: Callable[..., Any]) -> None:
    server = Always()
    with http_server(server.answer) as url:
        secret = url.replace("//", "//re%40der:p%2Fä@") + "/prefix"
        PrometheusMetrics(secret, "qa", token="another").window(0, 60, 60)
        server.told = 403, b"{}"
        with pytest.raises(MetricsUnavailableError, match="user and password in OPPORTUNE_PROMETHEUS_URL") as failure:
            PrometheusMetrics(secret, "qa").window(0, 60, 60)
    told = str(failure.value)
    assert f"{url}/prefix" in told and "re%40der" not in told and "p%2F" not in told
    assert {asked.headers["Authorization"] for asked in server.seen} == {
        "Basic " + base64.b64encode("re@der:p/ä".encode()).decode()
    }
    with pytest.raises(MetricsUnavailableError) as failure:
        PrometheusMetrics(f"http://reader:s3cr3t@127.0.0.1:{free_port()}", "qa").window(0, 60, 60)
    assert "s3cr3t" not in str(failure.value) and "reader" not in str(failure.value)


@pytest.mark.parametrize(
    "address",
    ["reader:s3cr3t@host:9090", "ftp://reader:s3cr3t@host", "https://reader:s3/cr3t@host", "http://[::1", "http://"],
)
def test_an_address_that_is_none_is_named_without_its_password(address: str) -> None:
    with pytest.raises(ConfigurationError, match="OPPORTUNE_PROMETHEUS_URL") as failure:
        PrometheusMetrics(address, "qa")
    assert "cr3t" not in str(failure.value)


# --- something else than Prometheus answers

LOGIN = b"<!DOCTYPE html><html><head><title>Sign in\n to Example</title></head><body></body></html>"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            (200, LOGIN, {"Content-Type": "text/html"}),
            ["a web page (Sign in to Example) instead of JSON", "_URL", "_TOKEN"],
        ),
        ((200, b"", {"Content-Type": "text/html"}), ["a web page instead of JSON"]),
        (
            (302, b"", {"Location": "https://sso.example/login?state=s3cr3t"}),
            ["HTTP 302, a redirect to https://sso.example/login;", "check OPPORTUNE_PROMETHEUS_URL"],
        ),
        ((308, b"", {"Location": "/elsewhere"}), ["HTTP 308, a redirect to http://127.0.0.1:", "/elsewhere;"]),
        ((401, LOGIN), ["HTTP 401", "check OPPORTUNE_PROMETHEUS_TOKEN"]),
        ((403, b"{}"), ["HTTP 403", "check OPPORTUNE_PROMETHEUS_TOKEN"]),
        ((404, b"404 page not found"), ["HTTP 404, no Prometheus there; check OPPORTUNE_PROMETHEUS_URL"]),
        ((502, LOGIN), ["HTTP 502, a web page (Sign in"]),
        ((200, b"ok"), ["not JSON; check OPPORTUNE_PROMETHEUS_URL"]),
        ((422, b'{"status":"error","error":"too many samples"}'), ["HTTP 422: too many samples"]),
        ((500, b"[]"), ["did not answer: HTTP 500"]),
    ],
)
def test_what_came_instead_of_samples_and_what_to_check(
    answer: tuple[Any, ...], told: list[str], http_server: Callable[..., Any]
) -> None:
    with http_server(lambda _: answer) as url, pytest.raises(MetricsUnavailableError) as failure:
        PrometheusMetrics(url, "qa", token="t0k").window(0, 60, 60)
    for words in told:
        assert words in str(failure.value)
    assert "JSONDecodeError" not in str(failure.value) and "s3cr3t" not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_without_any_login_it_says_which_settings_there_are(http_server: Callable[..., Any]) -> None:
    with http_server(Always(401).answer) as url, pytest.raises(MetricsUnavailableError) as failure:
        PrometheusMetrics(url, "qa").window(0, 60, 60)
    assert "set OPPORTUNE_PROMETHEUS_TOKEN, or OPPORTUNE_PROMETHEUS_AUTH to sigv4" in str(failure.value)


# --- why there are no samples


def missing(url: str, service: str, words: str, step_s: float = 0.5, metric: str = "cpu") -> str:
    """The reason, as soon as it has these words: Prometheus scrapes for a few seconds first."""
    source = PrometheusMetrics(url, service)
    deadline, told = time.monotonic() + 30, ""
    while words not in told:
        assert time.monotonic() < deadline, f"{words!r} never came, but {told!r}"
        now = time.time()
        time.sleep(0.2)
        try:
            told = source.explained(source.window(now - 20 * step_s, now, step_s)).missing.get(metric, "")
        except MetricsUnavailableError:
            continue
    return told


def test_another_tools_service_label_is_named(prometheus: str) -> None:
    told = missing(prometheus, "op", "exported_service")
    assert "'opportune-serving'" in told and "honorLabels: true" in told


@pytest.mark.parametrize("metric", ["request_rate", "latency"])
def test_scraped_too_seldom_for_a_rate(prometheus: str, metric: str) -> None:
    told = missing(prometheus, "slow", "scraped every", step_s=0.2, metric=metric)
    seconds = re.search(r"scraped every ([\d.]+) s or so, a decision slot is 0\.2 s", told)
    assert seconds and 0.8 <= float(seconds.group(1)) <= 1.5
    assert "scrape_interval to 0.2 s or less" in told and re.search("OPPORTUNE_SLOT_SECONDS to [12] or more", told)


def test_no_traffic_is_told_apart_from_no_scrape(prometheus: str) -> None:
    assert missing(prometheus, "idle", "no requests", metric="latency").startswith("no requests: ")
    assert missing(prometheus, "new", "no requests", metric="request_rate").startswith("no requests: ")
    told = [missing(prometheus, service, "labelled", metric="bleu") for service in ("new", "idle")]
    assert all(words.startswith("no labelled answers: ") for words in told)
    assert "llm_memory_usage_ratio" in missing(prometheus, "idle", "does not say its", metric="memory")


def test_a_service_that_is_not_there_is_told_with_those_that_are(prometheus: str) -> None:
    told = missing(prometheus, "nobody", "and others")
    assert "nothing of service nobody is there" in told and "OPPORTUNE_SERVICE" in told
    assert told.count("'") == 2 * 5


def test_a_container_that_is_scraped_no_more(prometheus: str) -> None:
    assert re.search(
        r"llm_cpu_utilisation_ratio was last scraped \d+ s ago", missing(prometheus, "gone", "last scraped")
    )


def test_a_series_that_has_ended_is_looked_into_as_an_empty_one(prometheus: str) -> None:
    missing(prometheus, "gone", "last scraped", step_s=1.0)  # in slots as long as the window's below
    source, now = PrometheusMetrics(prometheus, "gone"), time.time()
    series = {"cpu": Series((now - 10, now - 5), (0.5, 0.5)), "redeploys": Series((), ())}
    window = MetricWindow(service="gone", start_s=now - 10, end_s=now, step_s=1.0, series=series)
    assert "last scraped" in source.explained(window).missing["cpu"]
    lively = MetricWindow(
        service="gone",
        start_s=0,
        end_s=10,
        step_s=5,
        series={"cpu": Series((0, 5), (1, 1)), "redeploys": Series((), ())},
    )
    assert source.explained(lively) == lively


def test_nobody_has_these_metrics(http_server: Callable[..., Any]) -> None:
    server = Always()
    window = MetricWindow(service="qa", start_s=0, end_s=60, step_s=60, series={"cpu": Series((), ())})
    with http_server(server.answer) as url:
        told = PrometheusMetrics(url, "qa").explained(window).missing["cpu"]
    assert told == "no service at all has these metrics; is the serving container scraped?"
    assert len(server.seen) == 1
