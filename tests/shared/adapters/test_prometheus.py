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
from urllib.parse import parse_qs

import pytest
import requests
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.processes.supervisor import tool
from shared.adapters.aws.session import AwsSession
from shared.adapters.metric_proofs import Identities, Signature, signed_for
from shared.adapters.prometheus import PrometheusMetrics
from shared.adapters.prometheus_store import PrometheusStore
from shared.contracts import MetricWindow, Series
from shared.errors import ConfigurationError, MetricsUnavailableError, UnavailableError
from shared.promql import METRICS
from shared.settings import MetricStore, Settings

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


_PAIRS = 'llm_feedback_window_pairs{{service="{}",cloud="{}",model_version="v1"}} {}\n'
PAIRS = {
    "two": _PAIRS.format("two", "aws", 30) + _PAIRS.format("two", "azure", 10),
    "half": _PAIRS.format("half", "aws", 30),
    "plain": "",
}

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
""",
    "/new": """llm_cpu_utilisation_ratio{service="new",cloud="aws"} 0.5
llm_memory_usage_ratio{service="new",cloud="aws"} 0.5
""",
    # both clouds, three containers; in `half` one cloud does not say of how many answers its mean is, in `plain` none
    **{
        f"/{service}": f"""llm_cpu_utilisation_ratio{{service="{service}",cloud="aws",instance="a"}} 0.9
llm_cpu_utilisation_ratio{{service="{service}",cloud="aws",instance="b"}} 0.6
llm_cpu_utilisation_ratio{{service="{service}",cloud="azure",instance="c"}} 0.3
llm_memory_usage_ratio{{service="{service}",cloud="aws"}} 0.5
llm_memory_usage_ratio{{service="{service}",cloud="azure"}} 0.25
llm_requests_total{{service="{service}",cloud="aws",status="200"}} COUNT
llm_requests_total{{service="{service}",cloud="azure",status="200"}} SUM
llm_request_latency_seconds_sum{{service="{service}",cloud="aws"}} SUM
llm_request_latency_seconds_sum{{service="{service}",cloud="azure"}} COUNT
llm_request_latency_seconds_count{{service="{service}",cloud="aws"}} COUNT
llm_request_latency_seconds_count{{service="{service}",cloud="azure"}} SUM
llm_bleu{{service="{service}",cloud="aws",model_version="v1"}} 0.75
llm_bleu{{service="{service}",cloud="azure",model_version="v1"}} 0.25
llm_accuracy{{service="{service}",cloud="aws",model_version="v1"}} 0.5
llm_accuracy{{service="{service}",cloud="azure",model_version="v1"}} 0.125
{pairs}llm_rl_redeploy_total{{service="{service}"}} 7
"""
        for service, pairs in PAIRS.items()
    },
    "/gone": """llm_cpu_utilisation_ratio{service="gone",cloud="aws"} 0.5
""",
}
#: what a job has beyond the rest
SCRAPED: dict[str, dict[str, Any]] = {"/slow": {"scrape_interval": "1s"}}
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
        return status, _counting(PAGES[asked.path]), {"Content-Type": "text/plain"}
    return 200, _counting(EXPOSED), {"Content-Type": "text/plain"}


def _counting(text: str) -> bytes:
    requests_so_far = int(time.time() * 10)  # a quarter of a second each
    page = text.replace("SUM", str(requests_so_far / 4)).replace("COUNT", str(requests_so_far))
    return page.encode()


def over(
    url: str, service: str, *, timeout_s: float = 5.0, identities: Identities | None = None, **place: Any
) -> PrometheusMetrics:
    """The metrics of one store."""
    return PrometheusMetrics(service, [PrometheusStore(MetricStore(url, **place), identities, timeout_s)])


def per_cloud(service: str, aws: str, azure: str, *, timeout_s: float = 5.0, **place: Any) -> PrometheusMetrics:
    """The metrics of one store per cloud."""
    places = (MetricStore(aws, cloud="aws", **place), MetricStore(azure, cloud="azure", **place))
    return PrometheusMetrics(service, [PrometheusStore(one, timeout_s=timeout_s) for one in places])


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
    source = over(prometheus, "qa")
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
    source = over(prometheus, "qa")
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


# --- one store per cloud


def scraped_for(prometheus: str, service: str, seconds: float) -> float:
    """The moment at which the service has been scraped for so long."""
    deadline = time.monotonic() + 60
    while True:
        now = time.time()
        try:
            times = over(prometheus, service).window(now - 20, now, 0.5, ["latency"]).series["latency"].timestamps_s
        except MetricsUnavailableError:
            times = ()
        if times and times[-1] - times[0] >= seconds:
            return times[-1]
        assert time.monotonic() < deadline, "Prometheus scraped nothing"
        time.sleep(0.3)


@pytest.mark.parametrize("service", PAIRS)
def test_two_stores_say_what_one_with_both_clouds_says(prometheus: str, service: str) -> None:
    end = scraped_for(prometheus, service, 3.0) - 1.0  # nothing is added there any more
    one = over(prometheus, service).window(end - 2, end, 0.5)
    two = per_cloud(service, prometheus, prometheus).window(end - 2, end, 0.5)
    assert not one.silent and not two.silent
    for name, series in one.series.items():
        assert two.series[name].timestamps_s == series.timestamps_s, name
        assert two.series[name].values == pytest.approx(series.values, rel=1e-12), name
    last = {name: series.values[-1] for name, series in two.series.items() if series.values}
    assert last["cpu"] == pytest.approx(0.6), "of three containers, not of two clouds"
    assert last["redeploys"] == 7, "told twice, counted once"
    quality = {"two": 0.625, "half": 0.75, "plain": 0.5}[service]
    assert last["bleu"] == pytest.approx(quality)
    # four times as many requests at a quarter of a second as at four seconds
    assert last["request_rate"] == pytest.approx(12.5, rel=0.3)
    assert last["latency"] == pytest.approx((0.25 * 10 + 4 * 2.5) / 12.5, rel=0.05)


def test_a_silent_store_is_a_missing_cloud_and_not_zero(prometheus: str) -> None:
    end = scraped_for(prometheus, "two", 2.0)
    source = per_cloud("two", prometheus, f"http://127.0.0.1:{free_port()}", timeout_s=2.0)
    window = source.window(end - 2, end, 0.5)
    assert set(window.silent) == {"azure"} and "did not answer" in window.silent["azure"]
    assert set(window.series["cpu"].values) == {0.75} and set(window.series["bleu"].values) == {0.75}
    assert window.series["latency"].values[-1] == pytest.approx(0.25, rel=0.01)
    assert source.explained(window) == window, "nothing is missing, and who did not answer is not asked again"
    served = source.served(end, 1.0)
    assert served["aws"].latency_s == pytest.approx(0.25, rel=0.01) and "azure" not in served


def test_a_store_without_its_clouds_samples_is_silent_too(prometheus: str, http_server: Callable[..., Any]) -> None:
    end = scraped_for(prometheus, "two", 2.0)
    with http_server(Always().answer) as nothing:
        source = per_cloud("two", prometheus, nothing)
        window = source.window(end - 2, end, 0.5)
        assert "no llm_memory_usage_ratio of the last 3 slots" in window.silent["azure"]
        told = source.explained(window)
    assert "is the serving container scraped?" in told.silent["azure"] and not told.missing


def test_two_silent_stores_are_one_error_that_names_both() -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    source = per_cloud("qa", *urls, timeout_s=1.0)
    for ask in (lambda: source.window(0, 60, 60), lambda: source.served(60, 60)):
        with pytest.raises(MetricsUnavailableError) as failure:
            ask()
        for words in (*urls, "aws: ", "azure: "):
            assert words in str(failure.value)


def test_what_is_missing_everywhere_is_told_cloud_by_cloud(prometheus: str, http_server: Callable[..., Any]) -> None:
    now = scraped_for(prometheus, "two", 2.0)
    with http_server(Always(503, b"{}").answer) as busy:
        source = per_cloud("idle", prometheus, busy, timeout_s=2.0)
        told = source.explained(source.window(now - 5, now, 0.5)).missing["latency"]
    assert told.startswith("aws: no requests: ") and f"; azure: Prometheus at {busy} did not answer: HTTP 503" in told


def test_the_stores_are_asked_side_by_side_each_within_its_time() -> None:
    with dripping(0.3) as first, dripping(0.3) as second:
        source = per_cloud("qa", first, second, timeout_s=1.0)
        begun = time.monotonic()
        with pytest.raises(MetricsUnavailableError, match=r"aws: no whole answer.*azure: no whole answer"):
            source.window(0, 60, 60)
        assert time.monotonic() - begun < 1.8


def test_a_slow_store_does_not_take_the_other_one_away(http_server: Callable[..., Any]) -> None:
    server = Always()
    with dripping(0.3) as slow, http_server(server.answer) as url:
        window = per_cloud("qa", slow, url, timeout_s=0.5).window(0, 60, 60, ["bleu"])
    assert window.silent == {"aws": f"Prometheus at {slow} did not answer: no whole answer within 0.5 s"}


def test_each_store_is_asked_for_its_own_cloud_alone(http_server: Callable[..., Any]) -> None:
    aws, azure = Always(), Always()
    with http_server(aws.answer) as first, http_server(azure.answer) as second:
        source = per_cloud("qa", first, second, token="t0k")
        source.explained(source.window(0, 60, 60))
        source.served(60, 60)
    for server, cloud in ((aws, "aws"), (azure, "azure")):
        assert len(server.seen) == 3
        for asked in server.seen:
            (query,) = parse_qs(asked.body.decode())["query"]
            assert query.count('service="qa"') == query.count(f'service="qa", cloud=~"{cloud}|"') > 0


def test_the_settings_name_one_store_or_one_per_cloud() -> None:
    env = {"OPPORTUNE_PROMETHEUS_URL": "http://one:9090", "OPPORTUNE_PROMETHEUS_TOKEN": "t0k"}
    assert Settings.from_env(env).metric_stores() == (MetricStore("http://one:9090", "bearer", "t0k"),)
    env |= {
        "OPPORTUNE_PROMETHEUS_URL_AWS": "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1",
        "OPPORTUNE_PROMETHEUS_AUTH_AWS": "sigv4",
        "OPPORTUNE_PROMETHEUS_URL_AZURE": "https://metrics.example",
        "OPPORTUNE_PROMETHEUS_TOKEN_AZURE": "other",
    }
    settings = Settings.from_env(env)
    aws, azure = settings.metric_stores()
    assert (aws.cloud, aws.auth) == ("aws", "sigv4") and aws.variable("URL") == "OPPORTUNE_PROMETHEUS_URL_AWS"
    assert (azure.cloud, azure.auth, azure.token) == ("azure", "bearer", "other")
    assert settings.asking("http://here").metric_stores() == (MetricStore("http://here", "bearer", "t0k"),)
    assert "other" not in str(settings.redacted())
    with pytest.raises(ConfigurationError, match="allowed: none, bearer, basic, sigv4, entra"):
        Settings.from_env({"OPPORTUNE_PROMETHEUS_AUTH_AZURE": "sig"})


def test_a_month_is_fetched_in_parts(prometheus: str) -> None:
    now = time.time()
    window = over(prometheus, "qa").window(now - 30 * 86_400, now, 60)
    assert window.series["cpu"].values == ()


def test_nobody_answers() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MetricsUnavailableError, match=url):
        over(url, "qa", timeout_s=1).window(0, 60, 60)


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
        source = over(url, "qa", token="secret-token")
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
        assert over(url, "qa").window(0, 60, 60).series["cpu"].values == ()
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
    window = over(amazon.url, "qa", auth="sigv4", identities=Identities(aws=AwsSession())).window(0, 60, 60)
    assert set(window.series) == set(METRICS)
    assert len(amazon.scopes) == 1, "one request for all of them"
    assert {scope.split("/", 1)[1] for scope in amazon.scopes} == {"eu-central-1/aps/aws4_request"}
    assert amazon.seen[0].headers["X-Amz-Security-Token"] == "example-session"


def test_a_wrong_key_is_refused_and_never_shown(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(MetricsUnavailableError, match="403") as failure:
        over(amazon.url, "qa", auth="sigv4").window(0, 60, 60)
    assert "secret" not in str(failure.value)


def test_the_workspaces_region_counts_not_the_functions(amazon: Amazon) -> None:
    url = "https://aps-workspaces.us-west-2.amazonaws.com/workspaces/ws-1/api/v1/query"
    request = requests.Request("POST", url, data={"query": "up or vector(1)"}).prepare()
    assert "/us-west-2/aps/aws4_request" in Signature(AwsSession())(request).headers["Authorization"]


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1", ("aps", "eu-west-1")),
        ("https://aps-workspaces-fips.us-gov-west-1.amazonaws.com/workspaces/ws-1", ("aps", "us-gov-west-1")),
        ("https://monitoring.eu-central-1.amazonaws.com", ("monitoring", "eu-central-1")),
        ("https://prometheus.example.com", ("aps", "")),
    ],
)
def test_the_address_says_which_service_a_signature_is_for(url: str, signed: tuple[str, str]) -> None:
    assert signed_for(url) == signed


def test_the_service_of_a_signature_can_be_said(amazon: Amazon) -> None:
    request = requests.Request("POST", f"{amazon.url}/api/v1/query", data={"query": "up"}).prepare()
    signed = Signature(AwsSession(), "monitoring")(request).headers["Authorization"]
    assert "/eu-central-1/monitoring/aws4_request" in signed


def test_the_azure_identity_proves_each_query(http_server: Callable[..., Any]) -> None:
    server, scopes = Always(), []

    def token(scope: str) -> str:
        scopes.append(scope)
        return f"t0k-{len(scopes)}"

    with http_server(server.answer) as url:
        source = over(url, "qa", auth="entra", token="unused", identities=Identities(entra_token=token))
        source.window(0, 60, 60)
        source.served(60, 60)
        assert [asked.headers["Authorization"] for asked in server.seen] == ["Bearer t0k-1", "Bearer t0k-2"]
        assert set(scopes) == {"https://prometheus.monitor.azure.com/.default"}
        server.told = 403, b"{}"
        with pytest.raises(MetricsUnavailableError, match="role Monitoring Data Reader") as failure:
            source.window(0, 60, 60)
    assert "t0k" not in str(failure.value)


def test_no_azure_identity_is_no_metrics_and_says_what_to_do() -> None:
    def token(scope: str) -> str:
        raise UnavailableError("Microsoft Entra", "no token; run `az login`")

    source = over("http://127.0.0.1:9", "qa", auth="entra", identities=Identities(entra_token=token))
    with pytest.raises(MetricsUnavailableError, match="az login"):
        source.window(0, 60, 60)


def test_without_an_identity_it_says_what_to_do(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MetricsUnavailableError, match="set AWS_REGION"):
        over(amazon.url, "qa", auth="sigv4").window(0, 60, 60)


def test_auth_none_sends_no_token(http_server: Callable[..., Any]) -> None:
    server = Always()
    with http_server(server.answer) as url:
        over(url, "qa", token="secret-token", auth="none").window(0, 60, 60)
    assert "Authorization" not in server.seen[0].headers


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, http_server: Callable[..., Any]) -> None:
    server = Always()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http_server(server.answer) as url:
        monkeypatch.setenv("http_proxy", url)
        over("http://prometheus.example:9090", "qa").window(0, 60, 60)
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
    source = over(url, "qa", timeout_s=timeout_s)
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
            over(url, "qa", timeout_s=0.2).window(0, 60 * 10_000 * 30, 60)
        assert time.monotonic() - begun < 12 * 0.2 + 1.0
    assert 5 < len(seen) < 30


# --- user and password in the address


def test_user_and_password_of_the_address_are_used_and_never_shown(http_server: Callable[..., Any]) -> None:
    server = Always()
    with http_server(server.answer) as url:
        secret = url.replace("//", "//re%40der:p%2Fä@") + "/prefix"
        over(secret, "qa", token="another").window(0, 60, 60)
        server.told = 403, b"{}"
        with pytest.raises(MetricsUnavailableError, match="user and password in OPPORTUNE_PROMETHEUS_URL") as failure:
            over(secret, "qa").window(0, 60, 60)
    told = str(failure.value)
    assert f"{url}/prefix" in told and "re%40der" not in told and "p%2F" not in told
    assert {asked.headers["Authorization"] for asked in server.seen} == {
        "Basic " + base64.b64encode("re@der:p/ä".encode()).decode()
    }
    with pytest.raises(MetricsUnavailableError) as failure:
        over(f"http://reader:s3cr3t@127.0.0.1:{free_port()}", "qa").window(0, 60, 60)
    assert "s3cr3t" not in str(failure.value) and "reader" not in str(failure.value)


def test_user_and_password_may_be_the_token(http_server: Callable[..., Any]) -> None:
    server = Always()
    with http_server(server.answer) as url:
        over(url, "qa", auth="basic", token="reader:p:w").window(0, 60, 60)
    assert server.seen[0].headers["Authorization"] == "Basic " + base64.b64encode(b"reader:p:w").decode()


@pytest.mark.parametrize("token", ["", "s3cr3t"])
def test_basic_without_user_and_password_is_a_wrong_setting(token: str) -> None:
    with pytest.raises(ConfigurationError, match=r"OPPORTUNE_PROMETHEUS_TOKEN_AZURE is .*user:password") as failure:
        over("http://host", "qa", auth="basic", token=token, cloud="azure")
    assert "s3cr3t" not in str(failure.value)


@pytest.mark.parametrize(
    "address",
    ["reader:s3cr3t@host:9090", "ftp://reader:s3cr3t@host", "https://reader:s3/cr3t@host", "http://[::1", "http://"],
)
def test_an_address_that_is_none_is_named_without_its_password(address: str) -> None:
    with pytest.raises(ConfigurationError, match="OPPORTUNE_PROMETHEUS_URL") as failure:
        over(address, "qa")
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
        over(url, "qa", token="t0k").window(0, 60, 60)
    for words in told:
        assert words in str(failure.value)
    assert "JSONDecodeError" not in str(failure.value) and "s3cr3t" not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_without_any_login_it_says_which_settings_there_are(http_server: Callable[..., Any]) -> None:
    with http_server(Always(401).answer) as url, pytest.raises(MetricsUnavailableError) as failure:
        over(url, "qa").window(0, 60, 60)
    assert "set OPPORTUNE_PROMETHEUS_TOKEN, or OPPORTUNE_PROMETHEUS_AUTH to sigv4" in str(failure.value)


# --- why there are no samples


def missing(url: str, service: str, words: str, step_s: float = 0.5, metric: str = "cpu") -> str:
    """The reason, as soon as it has these words: Prometheus scrapes for a few seconds first."""
    source = over(url, service)
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
    source, now = over(prometheus, "gone"), time.time()
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
        told = over(url, "qa").explained(window).missing["cpu"]
    assert told == "no service at all has these metrics; is the serving container scraped?"
    assert len(server.seen) == 1
