"""What a slot sees of the metrics over the real adapter: the reason when nothing is there, and no password."""

import dataclasses
import json
import re
import time

import pytest

from functions.scheduling.read import observed
from policy.observation.live import REQUIRED, history_of
from shared.adapters.prometheus import metrics_of
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
