"""Push of a training job's metrics to a Pushgateway: it is gone before Prometheus could scrape it."""

from __future__ import annotations

import logging
from functools import partial
from http.client import HTTPException
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, push_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler

from shared.addresses import parted, without_users
from shared.contracts import Cloud, ModelManifest

log = logging.getLogger(__name__)

#: the Prometheus `job` label of everything pushed from here; serving metrics carry another one
PUSH_JOB: Final = "opportune-training"
_TIMEOUT_S: Final = 5.0


def push_metrics(url: str, manifest: ModelManifest, cloud: Cloud) -> None:
    """Push the finished job's numbers, grouped by job and service, so that a repeat replaces and never adds.

    A Pushgateway that does not answer is logged: the model is worth more than its metrics.
    """
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, value: float) -> None:
        Gauge(name, help_text, ["cloud"], registry=registry).labels(cloud).set(value)

    gauge("llm_bleu", "BLEU-1 of the candidate on the fresh evaluation set", manifest.candidate.bleu1)
    gauge("llm_accuracy", "Exact match of the candidate on the fresh evaluation set", manifest.candidate.exact_match)
    gauge("llm_retrain_duration_seconds", "Wall time of the retrain", manifest.duration_s)
    Counter("llm_retrain_total", "Retrains completed", ["cloud"], registry=registry).labels(cloud).inc()
    key = {"service": manifest.service, "job_id": manifest.job_id}
    try:
        address, user = parted(url)
        handler = partial(basic_auth_handler, username=user[0], password=user[1]) if user else default_handler
        push_to_gateway(address, PUSH_JOB, registry, grouping_key=key, timeout=_TIMEOUT_S, handler=handler)
    except (OSError, ValueError, HTTPException) as exc:
        log.warning(f"Pushgateway did not take the metrics: {without_users(str(exc))}", extra={"action": "push"})
