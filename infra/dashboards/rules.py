"""Prometheus recording rules and alerts over the metrics of the serving containers and of the control plane.

Both clouds' HTTP functions tell the same numbers of the control plane, so that a query takes their `max`.
Names of recording rules are `service:<what>`; the dashboards read them, so that a graph and an alert never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml

HEADER: Final = "# Built by `python -m infra.dashboards.build`; change infra/dashboards/rules.py instead.\n"
#: retrains a day above this deserve a look: the policy may be chasing noise
MANY_RETRAINS_PER_DAY: Final = 12


@dataclass(frozen=True, slots=True)
class Recording:
    """A series computed once for every reader."""

    record: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person has to look at; `runbook` is a section of docs/operations.md."""

    alert: str
    expr: str
    minutes: int
    severity: str
    summary: str
    runbook: str


#: only what the active versions answer counts; a replaced version's window fades for a while
_ACTIVE: Final = "and on (service, cloud, model_version) llm_model_active == 1"

RECORDINGS: Final = (
    Recording("service:llm_bleu:active", f"avg by (service) (llm_bleu {_ACTIVE})"),
    Recording("service:llm_accuracy:active", f"avg by (service) (llm_accuracy {_ACTIVE})"),
    Recording("service:llm_quality:active", "0.5 * service:llm_bleu:active + 0.5 * service:llm_accuracy:active"),
    Recording("service_cloud:llm_requests:rate5m", "sum by (service, cloud) (rate(llm_requests_total[5m]))"),
    Recording(
        "service_cloud:llm_request_errors:ratio5m",
        '(sum by (service, cloud) (rate(llm_requests_total{status=~"5.."}[5m]))'
        " or 0 * sum by (service, cloud) (rate(llm_requests_total[5m])))"
        " / (sum by (service, cloud) (rate(llm_requests_total[5m])) > 0)",
    ),
    Recording(
        "service_cloud:llm_request_latency_seconds:p50",
        "histogram_quantile(0.5, sum by (service, cloud, le) (rate(llm_request_latency_seconds_bucket[5m])))",
    ),
    Recording(
        "service_cloud:llm_request_latency_seconds:p95",
        "histogram_quantile(0.95, sum by (service, cloud, le) (rate(llm_request_latency_seconds_bucket[5m])))",
    ),
)

ALERTS: Final = (
    Alert(
        "OpportuneQualityFell",
        "service:llm_quality:active < 0.8 * max_over_time(service:llm_quality:active[6h])",
        30,
        "warning",
        "Live quality of {{ $labels.service }} is {{ $value | humanize }}, a fifth below its best of six hours, "
        "and no retrain has brought it back.",
        "quality-fell",
    ),
    Alert(
        "OpportuneBlind",
        "count by (service) (llm_model_active) unless on (service) service:llm_bleu:active",
        15,
        "warning",
        "{{ $labels.service }} serves without labelled feedback: every decision is a hold.",
        "no-feedback",
    ),
    Alert(
        "OpportuneNotServing",
        "absent(llm_model_active == 1)",
        5,
        "critical",
        "No serving container is scraped, or none has a model.",
        "not-serving",
    ),
    Alert(
        "OpportuneErrors",
        "service_cloud:llm_request_errors:ratio5m > 0.01",
        5,
        "critical",
        "{{ $labels.cloud }} fails {{ $value | humanizePercentage }} of {{ $labels.service }}'s requests.",
        "errors",
    ),
    Alert(
        "OpportuneFeedbackLost",
        "increase(llm_feedback_dropped_total[15m]) > 0",
        0,
        "critical",
        "{{ $labels.cloud }} gave up {{ $value | humanize }} labelled pairs: the training data store refuses writes.",
        "feedback-lost",
    ),
    Alert(
        "OpportuneManyRetrains",
        f"max by (service) (increase(llm_rl_redeploy_total[1d])) > {MANY_RETRAINS_PER_DAY}",
        0,
        "warning",
        "{{ $labels.service }} was retrained {{ $value | humanize }} times in a day.",
        "many-retrains",
    ),
    Alert(
        "OpportuneVersionsDiffer",
        "count by (service) (count by (service, model_version) (llm_model_active == 1)) > 1",
        30,
        "warning",
        "The clouds have served different versions of {{ $labels.service }} for half an hour.",
        "versions-differ",
    ),
    Alert(
        "OpportuneMetricsSilent",
        "max by (service, cloud) (last_over_time(llm_memory_usage_ratio[1d]))"
        " unless on (service, cloud) llm_memory_usage_ratio",
        10,
        "critical",
        "Nothing is written any more by the serving containers of {{ $labels.service }} on {{ $labels.cloud }}: "
        "decisions are made without that cloud.",
        "metrics-silent",
    ),
    Alert(
        "OpportuneRetrainStuck",
        "max by (service, cloud) (llm_retrain_overdue_seconds) > 0",
        15,
        "critical",
        "A retrain of {{ $labels.service }} on {{ $labels.cloud }} is {{ $value | humanizeDuration }} beyond its "
        "deadline; no other can begin.",
        "retrain-stuck",
    ),
    Alert(
        "OpportuneDeadLetters",
        "max by (service, cloud) (llm_dead_letters) > 0",
        5,
        "warning",
        "{{ $value | humanize }} messages of {{ $labels.service }} on {{ $labels.cloud }} could not be handled.",
        "dead-letters",
    ),
    Alert(
        "OpportuneControlPlaneUnreadable",
        "max by (service, cloud, part) (llm_control_plane_part_up) == 0",
        15,
        "warning",
        "{{ $labels.part }} of {{ $labels.service }} on {{ $labels.cloud }} cannot be read.",
        "control-plane-unreadable",
    ),
)


def rules() -> dict[str, Any]:
    """The rule file's content, as Prometheus reads it."""
    recordings = [{"record": rule.record, "expr": rule.expr} for rule in RECORDINGS]
    alerts = [
        {
            "alert": alert.alert,
            "expr": alert.expr,
            "for": f"{alert.minutes}m",
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook": f"docs/operations.md#{alert.runbook}"},
        }
        for alert in ALERTS
    ]
    return {
        "groups": [
            {"name": "opportune-recordings", "rules": recordings},
            {"name": "opportune-alerts", "rules": alerts},
        ]
    }


def rules_yaml() -> str:
    """The rule file."""
    body: str = yaml.safe_dump(rules(), sort_keys=False, width=110)
    return HEADER + body
