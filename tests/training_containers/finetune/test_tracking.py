import os
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from shared.contracts import Metrics, ModelManifest, decode
from training_containers.finetune.hyperparameters import parse_hyperparameters
from training_containers.finetune.tracking import track

METRICS = Metrics(bleu1=0.5, exact_match=0.25, f1=0.5, rouge_l=0.5, examples=4)
HYPER = parse_hyperparameters({"job_id": "qa-1", "epochs": "7"})


def test_the_run_is_found_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_manifest: Callable[..., ModelManifest]
) -> None:
    manifest = a_manifest(service="qa", model_version="m1", job_id="qa-1", candidate=METRICS, duration_s=3.0)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = tmp_path.as_uri()
    track(manifest, HYPER, {"MLFLOW_TRACKING_URI": address})
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("qa")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "qa-1"
    assert run.data.params["epochs"] == "7"
    assert run.data.metrics == {
        "bleu1": 0.5,
        "exact_match": 0.25,
        "f1": 0.5,
        "rouge_l": 0.5,
        "duration_s": 3.0,
    }
    assert run.data.tags["model_version"] == "m1"
    (found,) = tmp_path.rglob("manifest.json")
    assert decode(ModelManifest, found.read_bytes()) == manifest


def test_no_server_means_no_wait_and_a_silent_one_does_no_harm(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    a_manifest: Callable[..., ModelManifest],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track(a_manifest(), HYPER, {})
    assert not caplog.records
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    track(a_manifest(), HYPER, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "MLflow did not take the run" in caplog.text
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setitem(sys.modules, "mlflow", None)
    track(a_manifest(), HYPER, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "mlflow is not installed here" in caplog.text
