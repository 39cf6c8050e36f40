"""The PromQL behind each metric of a service."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

# The answer quality that users get: every labelled answer counts once, however the clouds share the traffic. A model's
# score in training is pushed under the same name, but has no window of labelled answers. Serving processes of other
# make, which do not say how many answers their mean is of, count alike.
_LIVE: Final = (
    'sum({metric}{{service="$service"}} * llm_feedback_window_pairs{{service="$service"}})'
    ' / sum({metric}{{service="$service"}} * 0 + llm_feedback_window_pairs{{service="$service"}})'
    ' or avg({metric}{{service="$service", job!="opportune-training"}})'
)

#: metric name -> PromQL; $service is the service, $range at least two scrapes of a decision slot
METRICS: Final[dict[str, str]] = {
    "cpu": 'avg(llm_cpu_utilisation_ratio{service="$service"})',
    "memory": 'avg(llm_memory_usage_ratio{service="$service"})',
    "request_rate": 'sum(rate(llm_requests_total{service="$service"}[$range]))',
    "latency": (
        'sum(rate(llm_request_latency_seconds_sum{service="$service"}[$range]))'
        ' / sum(rate(llm_request_latency_seconds_count{service="$service"}[$range]))'
    ),
    "bleu": _LIVE.format(metric="llm_bleu"),
    "accuracy": _LIVE.format(metric="llm_accuracy"),
    "redeploys": 'sum(llm_rl_redeploy_total{service="$service"})',
    "static_retrains": 'sum(llm_static_retrain_total{service="$service"})',
}

#: the label that tells the series of `together` apart
METRIC: Final = "opportune_metric"

#: how many decision slots back a cloud's last sign of life is looked for; before that, its silence proves nothing
SEEN_SLOTS: Final = 1000

#: what routers start from, one value per cloud: the mean latency, and when its serving was last scraped
BY_CLOUD: Final[dict[str, str]] = {
    "latency": (
        'sum by (cloud) (rate(llm_request_latency_seconds_sum{service="$service"}[$range]))'
        ' / sum by (cloud) (rate(llm_request_latency_seconds_count{service="$service"}[$range]))'
    ),
    "seen": 'max by (cloud) (max_over_time(timestamp(llm_memory_usage_ratio{service="$service"})[$seen:$step]))',
}


def query(metric: str, service: str, step_s: float) -> str:
    """The PromQL of a metric for one service; rates look back over two decision slots."""
    return _filled(METRICS[metric], service, step_s)


def query_by_cloud(metric: str, service: str, step_s: float) -> str:
    """The PromQL of one of BY_CLOUD."""
    return _filled(BY_CLOUD[metric], service, step_s)


def together(queries: Mapping[str, str]) -> str:
    """One PromQL expression with every query's series, each labelled METRIC with the query's name."""
    return " or ".join(f'label_replace({promql}, "{METRIC}", "{name}", "", "")' for name, promql in queries.items())


def _filled(promql: str, service: str, step_s: float) -> str:
    spans = {"$range": 2.0 * step_s, "$seen": SEEN_SLOTS * step_s, "$step": step_s}
    for name, seconds in spans.items():
        promql = promql.replace(name, f"{max(1, math.ceil(1000.0 * seconds))}ms")
    return promql.replace("$service", service)
