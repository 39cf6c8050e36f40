"""The finished job as an MLflow run, when MLFLOW_TRACKING_URI is set."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from shared.contracts import Metrics, ModelManifest, encode
from training_containers.finetune.artifact import MANIFEST
from training_containers.finetune.hyperparameters import Hyperparameters, as_strings

log = logging.getLogger(__name__)

_VARIABLE = "MLFLOW_TRACKING_URI"


def track(manifest: ModelManifest, hyper: Hyperparameters, env: Mapping[str, str]) -> None:
    """Record parameters, metrics and the manifest in the experiment of the service; nothing when no server is named.

    A server that does not answer is logged: the model is worth more than its record.
    """
    if not env.get(_VARIABLE):
        return
    try:
        import mlflow
    except ImportError:
        log.warning(f"{_VARIABLE} is set, but mlflow is not installed here", extra={"action": "track"})
        return
    try:
        mlflow.set_tracking_uri(env[_VARIABLE])
        mlflow.set_experiment(manifest.service)
        with mlflow.start_run(run_name=manifest.job_id):
            mlflow.log_params(as_strings(hyper))
            mlflow.log_metrics(_numbers("", manifest.candidate) | _numbers("serving_", manifest.serving))
            mlflow.log_metric("duration_s", manifest.duration_s)
            mlflow.set_tags(
                {
                    "model_version": manifest.model_version,
                    "parent_version": manifest.parent_version,
                    "trace_id": manifest.trace_id,
                    "data_sha256": manifest.data_sha256,
                }
            )
            mlflow.log_text(encode(manifest).decode(), MANIFEST)
    except (mlflow.exceptions.MlflowException, OSError) as exc:
        log.warning(f"MLflow did not take the run: {exc}", extra={"action": "track"})


def _numbers(prefix: str, metrics: Metrics | None) -> dict[str, float]:
    if metrics is None:
        return {}
    return {f"{prefix}{name}": getattr(metrics, name) for name in ("bleu1", "exact_match", "f1", "rouge_l")}
