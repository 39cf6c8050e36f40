"""MLflow tracking: the finished job as a run, when MLFLOW_TRACKING_URI is set."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shared.artifact import MANIFEST
from shared.contracts import Metrics, ModelManifest, encode
from training_containers.finetune.hyperparameters import Hyperparameters, as_strings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_VARIABLE = "MLFLOW_TRACKING_URI"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""mlflow's own defaults (7 retries, 120 s each) keep a paid machine waiting for minutes; a value already set stands."""


def track(manifest: ModelManifest, hyper: Hyperparameters, env: Mapping[str, str]) -> None:
    """Record parameters, metrics and the manifest in the experiment of the service; nothing when no server is named.

    A server that does not answer is logged: the model is worth more than its record.
    """
    if not env.get(_VARIABLE):
        return
    try:
        import mlflow
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
    except ImportError:
        log.warning(f"{_VARIABLE} is set, but mlflow is not installed here", extra={"action": "track"})
        return
    for name, most in _PATIENCE.items():
        os.environ.setdefault(name, most)
    try:
        # A client of its own: mlflow.set_tracking_uri would write the address into this process's environment.
        client = mlflow.MlflowClient(env[_VARIABLE])
        tags = {
            "model_version": manifest.model_version,
            "parent_version": manifest.parent_version,
            "trace_id": manifest.trace_id,
            "data_sha256": manifest.data_sha256,
        }
        run = client.create_run(_experiment(client, manifest.service), tags=tags, run_name=manifest.job_id).info.run_id
        now_ms = round(time.time() * 1000)
        metrics = _numbers("", manifest.candidate) | _numbers("serving_", manifest.serving)
        metrics["duration_s"] = manifest.duration_s
        client.log_batch(
            run,
            [Metric(name, value, now_ms, 0) for name, value in metrics.items()],
            [Param(name, value) for name, value in as_strings(hyper).items()],
        )
        client.log_text(run, encode(manifest).decode(), MANIFEST)
        client.set_terminated(run)
    except (MlflowException, OSError) as exc:
        log.warning(f"MLflow did not take the run: {exc}", extra={"action": "track"})


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name) if found is None else found.experiment_id


def _numbers(prefix: str, metrics: Metrics | None) -> dict[str, float]:
    if metrics is None:
        return {}
    return {f"{prefix}{name}": getattr(metrics, name) for name in ("bleu1", "exact_match", "f1", "rouge_l")}
