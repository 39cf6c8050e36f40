"""The PromQL behind each metric of a service."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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


#: what a metric of METRICS is made of, for those that a decision needs; a rate is of two samples at least
SOURCE: Final[dict[str, str]] = {
    "cpu": "llm_cpu_utilisation_ratio",
    "memory": "llm_memory_usage_ratio",
    "request_rate": "llm_requests_total",
    "latency": "llm_request_latency_seconds_count",
    "bleu": "llm_bleu",
    "accuracy": "llm_accuracy",
}
RATES: Final = frozenset({"request_rate", "latency"})

#: how many decision slots back is looked into why a metric has no samples
EXPLAINED_SLOTS: Final = 240

# A training job's push bears the service's name, too, and says nothing of what serves.
_OF_IT: Final = '{service="$service", job!="opportune-training"}'

#: facts about one metric's source: samples in two slots and in all that is looked into, seconds between two of them,
#: and when the last one came
_FACTS: Final[dict[str, str]] = {
    "recent": f"max(count_over_time($source{_OF_IT}[$range]))",
    "samples": f"max(count_over_time($source{_OF_IT}[$back]))",
    "every": (
        f"min((max_over_time(timestamp($source{_OF_IT})[$back:$step])"
        f" - min_over_time(timestamp($source{_OF_IT})[$back:$step]))"
        f" / (count_over_time($source{_OF_IT}[$back]) - 1))"
    ),
    "newest": f"max(max_over_time(timestamp($source{_OF_IT})[$back:$step]))",
}


def query_facts(metrics: Collection[str], service: str, step_s: float) -> str:
    """One expression with all that tells why these metrics of SOURCE have no samples, named METRIC.FACT.

    `.serving` has a value where anything of the service is scraped, `.renamed` the values of `service` that another
    tool has put in the place of ours, `.services` the services there are.
    """
    names = "|".join(SOURCE.values())
    asked = {
        f"{metric}.{fact}": promql.replace("$source", SOURCE[metric])
        for metric in metrics
        for fact, promql in _FACTS.items()
    }
    asked[".serving"] = f'count(last_over_time({{__name__=~"{names}", {_OF_IT[1:]}[$back]))'
    asked[".renamed"] = f'count by (service) ({{__name__=~"{names}", exported_service="$service"}})'
    asked[".services"] = f'topk(6, count by (service) (last_over_time({{__name__=~"{names}"}}[$back])))'
    return together({name: _filled(promql, service, step_s) for name, promql in asked.items()})


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
    spans = {
        "$range": 2.0 * step_s,
        "$seen": SEEN_SLOTS * step_s,
        "$back": EXPLAINED_SLOTS * step_s,
        "$step": step_s,
    }
    for name, seconds in spans.items():
        promql = promql.replace(name, f"{max(1, math.ceil(1000.0 * seconds))}ms")
    return promql.replace("$service", service)
