"""The PromQL behind each metric of a service.

A metric is asked for as sums over its series, so that what several stores answer can be added: two clouds in two stores
are the same numbers as both clouds in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from shared.contracts import Cloud


class Parts(NamedTuple):
    """One way to make a metric: total / weight, both of them added up over the stores first."""

    total: str
    weight: str = ""  # empty: the total itself is the metric
    over_stores: Callable[[float, float], float] = float.__add__


_OF: Final = 'service="$service"'


def _mean(metric: str) -> Parts:
    return Parts(f"sum({metric}{{{_OF}}})", f"count({metric}{{{_OF}}})")


# The answer quality that users get: every labelled answer counts once, however the clouds share the traffic. Serving
# processes of other make, which do not say how many answers their mean is of, count alike.
def _live(metric: str) -> tuple[Parts, ...]:
    pairs = f"llm_feedback_window_pairs{{{_OF}}}"
    weighted = Parts(f"sum({metric}{{{_OF}}} * {pairs})", f"sum({metric}{{{_OF}}} * 0 + {pairs})")
    return weighted, _mean(metric)


#: metric name -> how it is made, the first way that has samples counts; $service is the service, $range at least two
#: scrapes of a decision slot
METRICS: Final[dict[str, tuple[Parts, ...]]] = {
    "cpu": (_mean("llm_cpu_utilisation_ratio"),),
    "memory": (_mean("llm_memory_usage_ratio"),),
    "request_rate": (Parts(f"sum(rate(llm_requests_total{{{_OF}}}[$range]))"),),
    "latency": (
        Parts(
            f"sum(rate(llm_request_latency_seconds_sum{{{_OF}}}[$range]))",
            f"sum(rate(llm_request_latency_seconds_count{{{_OF}}}[$range]))",
        ),
    ),
    "bleu": _live("llm_bleu"),
    "accuracy": _live("llm_accuracy"),
    # every HTTP function tells the same absolute numbers, so the largest counts, not their sum
    "redeploys": (Parts(f"max(llm_rl_redeploy_total{{{_OF}}})", over_stores=max),),
    "static_retrains": (Parts(f"max(llm_static_retrain_total{{{_OF}}})", over_stores=max),),
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

#: facts about one metric's source: samples in two slots and in all that is looked into, seconds between two of them,
#: and when the last one came
_FACTS: Final[dict[str, str]] = {
    "recent": f"max(count_over_time($source{{{_OF}}}[$range]))",
    "samples": f"max(count_over_time($source{{{_OF}}}[$back]))",
    "every": (
        f"min((max_over_time(timestamp($source{{{_OF}}})[$back:$step])"
        f" - min_over_time(timestamp($source{{{_OF}}})[$back:$step]))"
        f" / (count_over_time($source{{{_OF}}}[$back]) - 1))"
    ),
    "newest": f"max(max_over_time(timestamp($source{{{_OF}}})[$back:$step]))",
}


def query_facts(metrics: Collection[str], service: str, step_s: float, cloud: Cloud | None = None) -> str:
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
    asked[".serving"] = f'count(last_over_time({{__name__=~"{names}", {_OF}}}[$back]))'
    asked[".renamed"] = f'count by (service) ({{__name__=~"{names}", exported_{_OF}}})'
    asked[".services"] = f'topk(6, count by (service) (last_over_time({{__name__=~"{names}"}}[$back])))'
    return together({name: _filled(promql, service, step_s, cloud) for name, promql in asked.items()})


def query(metric: str, service: str, step_s: float) -> str:
    """A metric of one service as one expression, as a single store answers it; rates look back over two slots."""
    ways = [f"{way.total} / {way.weight}" if way.weight else way.total for way in METRICS[metric]]
    return _filled(" or ".join(ways), service, step_s)


def query_parts(metrics: Collection[str], service: str, step_s: float, cloud: Cloud | None = None) -> str:
    """One expression with the parts of these metrics, named as `part` says; with `cloud` only that cloud's series."""
    asked = {
        part(metric, way, side): promql
        for metric in metrics
        for way, parts in enumerate(METRICS[metric])
        for side, promql in (("total", parts.total), ("weight", parts.weight))
        if promql
    }
    return together({name: _filled(promql, service, step_s, cloud) for name, promql in asked.items()})


def part(metric: str, way: int, side: str) -> str:
    """The name of a part: METRIC.WAY.total or METRIC.WAY.weight."""
    return f"{metric}.{way}.{side}"


def query_by_cloud(service: str, step_s: float, cloud: Cloud | None = None) -> str:
    """One expression with all of BY_CLOUD."""
    return together({name: _filled(promql, service, step_s, cloud) for name, promql in BY_CLOUD.items()})


def together(queries: Mapping[str, str]) -> str:
    """One PromQL expression with every query's series, each labelled METRIC with the query's name."""
    return " or ".join(f'label_replace({promql}, "{METRIC}", "{name}", "", "")' for name, promql in queries.items())


def _filled(promql: str, service: str, step_s: float, cloud: Cloud | None = None) -> str:
    spans = {
        "$range": 2.0 * step_s,
        "$seen": SEEN_SLOTS * step_s,
        "$back": EXPLAINED_SLOTS * step_s,
        "$step": step_s,
    }
    for name, seconds in spans.items():
        promql = promql.replace(name, f"{max(1, math.ceil(1000.0 * seconds))}ms")
    # of one cloud's store: that cloud's series and those that do not name theirs, so that nothing is counted twice
    only = f', cloud=~"{cloud}|"' if cloud else ""
    return promql.replace('service="$service"', f'service="{service}"{only}')
