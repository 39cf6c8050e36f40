"""The Grafana dashboard: one question a row, from "is the model good?" to "are the containers well?"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

#: the oldest Grafana whose panel format this is
SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_OF: Final = 'service="$service"'
_COLOURS: Final = {"aws": "orange", "azure": "blue"}


def _control(metric: str, by: str = "cloud") -> str:
    """What the control plane tells of the service; every HTTP function tells the same."""
    return f"max by ({by}) ({metric}{{{_OF}}})"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph or number. `queries` are (PromQL, legend) pairs."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    high: float | None = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and its panels."""

    title: str
    panels: Sequence[Panel]


ROWS: Final = (
    Row(
        "Is the model good, and what was done about it?",
        (
            Panel("BLEU-1 now", ((f"service:llm_bleu:active{{{_OF}}}", ""),), "percentunit", "stat", 4, 5, 1),
            Panel("Exact match now", ((f"service:llm_accuracy:active{{{_OF}}}", ""),), "percentunit", "stat", 4, 5, 1),
            Panel(
                "Retrains in 24 h",
                ((f"max(increase(llm_rl_redeploy_total{{{_OF}}}[1d])) or vector(0)", ""),),
                "none", "stat", 4, 5, help="Started by the policy, both clouds.",
            ),
            Panel(
                "Serving version",
                ((f"llm_model_active{{{_OF}}} == 1", "{{cloud}} {{model_version}}"),),
                "none", "stat", 12, 5, help="One entry per cloud; during a swap they may differ for moments.",
            ),
            Panel(
                "Live quality",
                (
                    (f"service:llm_bleu:active{{{_OF}}}", "BLEU-1"),
                    (f"service:llm_accuracy:active{{{_OF}}}", "exact match"),
                ),
                "percentunit", width=16, height=9, high=1,
                help="Means over the rolling window of labelled feedback. Annotations mark new versions going live.",
            ),
            Panel(
                "Retrains so far",
                (
                    (f"sum by (cloud) ({_control('llm_retrain_total', 'cloud, status')})", "{{cloud}}"),
                    (f"max(llm_static_retrain_total{{{_OF}}})", "static baseline"),
                ),
                "none", width=8, height=9,
            ),
        ),
    ),
    Row(
        "What do users feel?",
        (
            Panel(
                "Latency by cloud",
                (
                    (f"service_cloud:llm_request_latency_seconds:p50{{{_OF}}}", "{{cloud}} p50"),
                    (f"service_cloud:llm_request_latency_seconds:p95{{{_OF}}}", "{{cloud}} p95"),
                ),
                "s",
            ),
            Panel(
                "Requests by cloud",
                ((f"service_cloud:llm_requests:rate5m{{{_OF}}}", "{{cloud}}"),),
                "reqps", help="Routing sends more to the faster cloud.",
            ),
            Panel(
                "Failed requests",
                ((f"service_cloud:llm_request_errors:ratio5m{{{_OF}}}", "{{cloud}}"),),
                "percentunit",
            ),
            Panel("Waiting for the engine", ((f"llm_queue_depth{{{_OF}}}", "{{cloud}}"),), "none"),
        ),
    ),
    Row(
        "Training and feedback",
        (
            Panel(
                "Mean duration of a retrain",
                (
                    (
                        f"{_control('llm_retrain_duration_seconds_sum')} / "
                        f"({_control('llm_retrain_duration_seconds_count')} > 0)",
                        "{{cloud}}",
                    ),
                ),
                "s", width=8,
            ),
            Panel(
                "Labelled pairs",
                ((f"sum by (cloud) (rate(llm_feedback_total{{{_OF}}}[5m])) * 60", "{{cloud}}, per minute"),),
                "none", width=8,
            ),
            Panel(
                "Feedback at risk",
                (
                    (f"increase(llm_feedback_put_failures_total{{{_OF}}}[15m])", "{{cloud}} refused writes"),
                    (f"increase(llm_feedback_dropped_total{{{_OF}}}[15m])", "{{cloud}} lost pairs"),
                ),
                "none", width=8,
            ),
        ),
    ),
    Row(
        "Is the control plane well?",
        (
            Panel(
                "Decisions of the last 60 slots",
                ((f"max by (action) (llm_decisions_recent{{{_OF}}})", "{{action}}"),),
                "none", width=6,
            ),
            Panel(
                "Jobs",
                (
                    (_control("llm_jobs_in_flight"), "{{cloud}} in flight"),
                    (_control("llm_retrain_queue_depth"), "{{cloud}} queued"),
                    (_control("llm_dead_letters"), "{{cloud}} dead letters"),
                ),
                "none", width=6,
            ),
            Panel(
                "Spent today, and the budget",
                (
                    (f"max(llm_retrain_budget_spent_usd{{{_OF}}})", "spent"),
                    (f"max(llm_retrain_budget_limit_usd{{{_OF}}})", "budget"),
                ),
                "currencyUSD", width=6,
            ),
            Panel(
                "Routes, and what cannot be read",
                (
                    (_control("llm_route_healthy"), "{{cloud}} healthy"),
                    (f"{_control('llm_control_plane_part_up', 'cloud, part')} == 0", "{{cloud}} {{part}} unreadable"),
                    (f"max(llm_paused{{{_OF}}})", "paused"),
                ),
                "none", width=6, high=1,
            ),
        ),
    ),
    Row(
        "Are the containers well?",
        (
            Panel("CPU", ((f"llm_cpu_utilisation_ratio{{{_OF}}}", "{{cloud}}"),), "percentunit", high=1),
            Panel("Memory", ((f"llm_memory_usage_ratio{{{_OF}}}", "{{cloud}}"),), "percentunit", high=1),
        ),
    ),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        panels.append(_placed({"type": "row", "title": row.title, "collapsed": False, "panels": []}, 0, top, 24, 1))
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            panels.append(_placed(_panel(panel), left, top, panel.width, panel.height))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "uid": "opportune",
        "title": "Opportune",
        "description": "Built by `python -m infra.dashboards.build`; "
        "needs the rules of infra/dashboards/prometheus/rules.yml.",
        "tags": ["opportune", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": _variables()},
        "annotations": {"list": [_versions_going_live()]},
        "panels": panels,
    }


def dashboard_json() -> str:
    """The dashboard file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def _placed(panel: dict[str, Any], x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {**panel, "gridPos": {"x": x, "y": y, "w": w, "h": h}}


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.high is not None:
        defaults["max"] = panel.high
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "textMode": "name" if "{{" in panel.queries[0][1] else "value",
            "colorMode": "none",
        }
    else:
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 2,
            "fillOpacity": 8,
            "spanNulls": False,  # a gap is missing data and is shown as one
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": [] if panel.kind == "stat" else _cloud_colours()},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for number, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _cloud_colours() -> list[dict[str, Any]]:
    """Each cloud has one colour in every graph."""
    return [
        {
            "matcher": {"id": "byRegexp", "options": f"/^{cloud}/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for cloud, colour in _COLOURS.items()
    ]


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "service",
            "label": "Service",
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": "label_values(llm_model_active, service)", "refId": "service"},
            "refresh": 2,
            "sort": 1,
        },
    ]


def _versions_going_live() -> dict[str, Any]:
    return {
        "name": "new version live",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "green",
        "expr": f"(llm_model_active{{{_OF}}} == 1) unless (llm_model_active{{{_OF}}} offset 1m == 1)",
        "titleFormat": "{{model_version}} live on {{cloud}}",
        "step": "1m",
    }
