import os
import sys
from pathlib import Path

import mlflow
import pytest

from shared.contracts import Metrics, ModelManifest, decode
from training_containers.finetune.hyperparameters import parse_hyperparameters
from training_containers.finetune.tracking import track

METRICS = Metrics(bleu1=0.5, exact_match=0.25, f1=0.5, rouge_l=0.5, examples=4)
MANIFEST = ModelManifest(
    service="qa",
    model_version="m1",
    parent_version="base",
    job_id="qa-1",
    trace_id="ab" * 16,
    created_s=1.0,
    base_model="distilgpt2",
    data_start_s=0.0,
    data_end_s=1.0,
    data_sha256="0" * 64,
    train_examples=8,
    eval_sha256="0" * 64,
    candidate=METRICS,
    serving=None,
    duration_s=3.0,
    files={},
)
HYPER = parse_hyperparameters({"job_id": "qa-1", "epochs": "7"})


def test_the_run_is_found_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = tmp_path.as_uri()
    track(MANIFEST, HYPER, {"MLFLOW_TRACKING_URI": address})
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
    assert decode(ModelManifest, found.read_bytes()) == MANIFEST


def test_no_server_means_no_wait_and_a_silent_one_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track(MANIFEST, HYPER, {})
    assert not caplog.records
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    track(MANIFEST, HYPER, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "MLflow did not take the run" in caplog.text
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setitem(sys.modules, "mlflow", None)
    track(MANIFEST, HYPER, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "mlflow is not installed here" in caplog.text
