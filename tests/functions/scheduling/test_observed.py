"""What a slot sees of the metrics over the real adapter: the reason when nothing is there, and no password."""

import dataclasses
import json
import re
import time
from urllib.parse import parse_qsl

import pytest

from functions.scheduling.read import observed
from functions.scheduling.tick import tick
from policy.decide import load_policy
from policy.observation.live import REQUIRED, history_of
from shared.adapters.prometheus import metrics_of
from shared.contracts import Action
from shared.errors import MetricsUnavailableError, NoSamplesError
from shared.promql import METRIC
from shared.settings import Settings


def over(world, url):
    source = lambda: metrics_of(Settings(prometheus_url=url), timeout_s=1.0)  # noqa: E731
    return dataclasses.replace(world.deps(), metrics=source)


@pytest.mark.parametrize("says_why", [True, False])
def test_a_metric_without_samples_is_asked_about_once_more(world, now, http_server, says_why):
    def answer(asked):
        if b"start=" in asked.body:
            return 200, b'{"data": {"result": []}}'
        if not says_why or b"opportune_metric" not in asked.body:
            return 503, b"{}"
        renamed = {"metric": {METRIC: ".renamed", "service": "operator"}, "value": [now, "6"]}
        return 200, json.dumps({"data": {"result": [renamed]}}).encode()

    with http_server(answer) as url:
        window, _ = observed(over(world, url), now)
    with pytest.raises(NoSamplesError) as failure:
        history_of(window, (), world.settings, now)
    assert "cpu of service qa" in str(failure.value)
    told = str(failure.value)
    assert ("exported_service" in told) is says_why and ("container scraped?" in told) is not says_why
    assert set(window.missing) == (set(REQUIRED) if says_why else set())


VALUES = {"cpu": 0.4, "memory": 0.5, "request_rate": 4.0, "latency": 0.2, "bleu": 0.5, "accuracy": 0.5}


def healthy(asked):
    """A store whose every metric is steady."""
    query = dict(parse_qsl(asked.body.decode()))
    if "start" not in query:
        return 200, b'{"data": {"result": []}}'
    start, end, step = (float(query[name]) for name in ("start", "end", "step"))
    times = [start + step * n for n in range(int((end - start) / step) + 1)]
    result = []
    for name in re.findall(r'"opportune_metric", "([\w.]+)"', query["query"]):
        value = 1.0 if name.endswith(".weight") else VALUES[name.partition(".")[0]]
        result.append({"metric": {METRIC: name}, "values": [[at, str(value)] for at in times]})
    return 200, json.dumps({"data": {"result": result}}).encode()


@pytest.mark.parametrize("azure_is", ["healthy", "silent"])
def test_the_policy_decides_from_one_cloud_while_the_others_metrics_are_silent(world, now, http_server, azure_is):
    world.policy = load_policy("threshold")
    other = healthy if azure_is == "healthy" else lambda _: (503, b"{}")
    with http_server(healthy) as aws, http_server(other) as azure:
        settings = Settings(prometheus_url_aws=aws, prometheus_url_azure=azure)
        deps = dataclasses.replace(world.deps(), metrics=lambda: metrics_of(settings, timeout_s=1.0))
        decision = tick(deps, now)
    assert not any(guard.name == "metrics" for guard in decision.guardrails), decision.reason
    rate, told = {"healthy": (8.0, None), "silent": (4.0, "HTTP 503")}[azure_is]
    assert decision.observation["request_rate"] == rate, "half of the requests are seen, none of them as zero"
    assert decision.observation["cpu"] == pytest.approx(0.4)
    condition = decision.conditions.get("azure metrics")
    assert condition is None if told is None else azure in condition and told in condition


def test_both_clouds_metrics_silent_is_a_hold(world, now, http_server):
    with http_server(lambda _: (503, b"{}")) as aws, http_server(lambda _: (401, b"")) as azure:
        settings = Settings(prometheus_url_aws=aws, prometheus_url_azure=azure)
        deps = dataclasses.replace(world.deps(), metrics=lambda: metrics_of(settings, timeout_s=1.0))
        decision = tick(deps, now)
    assert decision.action is Action.HOLD
    assert "aws: HTTP 503" in decision.reason and "azure: HTTP 401" in decision.reason
    assert "OPPORTUNE_PROMETHEUS_TOKEN_AZURE" in decision.reason


def test_a_store_that_cannot_be_asked_is_named_without_its_password(world, now, http_server):
    with http_server(lambda _: (503, b"{}", {"Retry-After": "20"})) as url:
        begun = time.monotonic()
        window, served = observed(over(world, url.replace("//", "//reader:s3cr3t@")), now)
    assert time.monotonic() - begun < 3.0 and served == {}
    assert isinstance(window, MetricsUnavailableError)
    assert re.search(r"Prometheus at http://127\.0\.0\.1:\d+ did not answer: HTTP 503", str(window))
    window, _ = observed(over(world, "https://reader:s3/cr3t@host"), now)
    assert isinstance(window, MetricsUnavailableError) and "OPPORTUNE_PROMETHEUS_URL" in str(window)
    assert "cr3t" not in str(window)
