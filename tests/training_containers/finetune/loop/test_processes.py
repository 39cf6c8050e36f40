"""Several processes train one model: what torchrun starts, over gloo on the CPU."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from shared.errors import InvalidInputError
from training_containers.finetune.hyperparameters import parse_hyperparameters
from training_containers.finetune.job import Folders, run_job
from training_containers.finetune.loop.batches import share
from training_containers.finetune.loop.encoding import IGNORE, Example
from training_containers.finetune.loop.interruption import EXIT_INTERRUPTED, Interruption
from training_containers.finetune.loop.launch import (
    Machines,
    azureml_machines,
    run_processes,
    sagemaker_machines,
)
from training_containers.model import artifact

MakeJob = Callable[..., Path]
StartTrain = Callable[..., subprocess.Popen[str]]


def farthest(one: Path, other: Path) -> float:
    """The largest difference between two models' weights."""
    a, b = (load_file(folder / "model/model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.slow
@pytest.mark.timeout(600)  # five interpreters with torch start in turn: on a busy machine that is most of it
def test_two_processes_make_the_model_of_one_and_resume_after_sigterm(
    make_job: MakeJob, start_train: StartTrain
) -> None:
    # many short steps, so that the signal comes before the end on a fast machine too
    short = {"epochs": "4", "batch_size": "8", "learning_rate": "0.0005"}
    one, two = make_job("one", **short), make_job("two", **short, processes="2")
    stopped = start_train(two)
    assert stopped.stdout is not None
    for line in stopped.stdout:
        if '"epoch": 1' in line:
            break
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate(timeout=250)
    assert stopped.returncode == EXIT_INTERRUPTED, err
    (checkpoint,) = (two / "checkpoints").iterdir()
    assert checkpoint.name.startswith("checkpoint-")
    assert not (two / "model/manifest.json").exists()

    resumed = start_train(two)
    raw = json.loads((one / "input/config/hyperparameters.json").read_text())
    folders = Folders(one / "input/data/training", None, one / "model", one / "checkpoints")
    run_job(folders, parse_hyperparameters(raw), Interruption(), os.environ)
    out, err = resumed.communicate(timeout=250)
    assert resumed.returncode == 0, err
    assert out.count('"action": "trained"') == 1, "more than one process wrote the artifact"
    artifact.verify(two / "model")
    assert json.loads((two / "model/metrics.json").read_text())["resumed_from"] > 0
    # the sums are taken in another order; training amplifies the last bits, but not beyond this
    assert farthest(one, two) < 1e-3
    losses = [json.loads((root / "model/metrics.json").read_text())["loss"] for root in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_shares_of_a_batch_are_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from training_containers.finetune.loop import processes

    examples = [Example([1, 2, 3, 10 + i], 2) for i in range(3)]
    monkeypatch.setattr(processes, "size", lambda: 4)
    taught = []
    for rank in range(4):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        batch = share(examples)
        assert int(batch["answer_tokens"]) == 6  # of the whole batch, so that the shares add up to its mean
        taught += batch["labels"][batch["labels"] != IGNORE].tolist()
    assert sorted(taught) == [3, 3, 3, 10, 11, 12]  # the fourth process had nothing left, and taught nothing


def test_machines_are_those_the_cloud_names(tmp_path: Path) -> None:
    assert sagemaker_machines(tmp_path) == Machines()
    config = tmp_path / "input/config/resourceconfig.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]}')
    assert sagemaker_machines(tmp_path) == Machines(2, 1, "algo-1")
    config.write_text('{"hosts": ["algo-1"]}')
    with pytest.raises(InvalidInputError, match="current_host"):
        sagemaker_machines(tmp_path)
    assert azureml_machines({}) == Machines()
    azure = {"AZUREML_RUN_ID": "r", "NODE_RANK": "1", "AZUREML_NODE_COUNT": "3", "MASTER_ADDR": "10.0.0.4"}
    assert azureml_machines(azure) == Machines(3, 1, "10.0.0.4")


def test_one_process_is_not_started_twice() -> None:
    assert run_processes(Machines(), 1, os.environ, Interruption()) is None
    assert run_processes(Machines(), 2, {"TORCHELASTIC_RUN_ID": "inside"}, Interruption()) is None
