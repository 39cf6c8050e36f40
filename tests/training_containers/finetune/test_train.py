"""The `train` command over real, tiny models, as each cloud starts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.contracts import ModelManifest
from shared.errors import IntegrityError, InvalidInputError, ModelError
from training_containers.finetune.hyperparameters import parse_hyperparameters
from training_containers.finetune.job import Folders, run_job
from training_containers.finetune.loop.interruption import InterruptedTrainingError, Interruption
from training_containers.finetune.make_base import make_base
from training_containers.model import artifact

MakeJob = Callable[..., Path]
StartTrain = Callable[..., subprocess.Popen[str]]


def train_here(root: Path, interruption: Interruption | None = None, **hyperparameters: str) -> ModelManifest:
    """The job of `root` in this process: seconds less than a fresh interpreter with torch."""
    raw = json.loads((root / "input/config/hyperparameters.json").read_text()) | hyperparameters
    folders = Folders(root / "input/data/training", root / "input/data/parent", root / "model", root / "checkpoints")
    manifest = run_job(folders, parse_hyperparameters(raw), interruption or Interruption(), os.environ)
    assert manifest is not None
    return manifest


def weights(folder: Path) -> str:
    return artifact.sha256_of(folder / "model.safetensors")


def wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if part in line:
            return
    raise AssertionError(f"{part} never came: {process.stderr and process.stderr.read()}")


def failure(root: Path) -> str:
    return (root / "output/failure").read_text()


@pytest.mark.slow
def test_a_retrain_learns_what_is_new_and_leaves_a_verified_artifact(make_job: MakeJob, base_model: Path) -> None:
    root = make_job()
    manifest = train_here(root)
    assert manifest == artifact.verify(root / "model")
    assert manifest.serving is not None
    assert manifest.candidate.exact_match >= manifest.serving.exact_match + 0.25
    assert manifest.candidate.examples == manifest.serving.examples
    assert manifest.model_version == artifact.model_version_for("qa-20260101t000000")
    written = [p for p in (root / "model").rglob("*") if p.is_file()]
    assert {p.suffix for p in written} <= {".json", ".safetensors", ".onnx", ".bin"}
    # no pickle, and no archive of pickles as torch writes it
    assert not any(p.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK") for p in written)
    assert list((root / "checkpoints").iterdir()) == []

    # the new model as the parent of the next job: it is what serves, so it is what the next one is measured against
    shutil.copytree(root / "model", root / "input/data/parent")
    again = train_here(root, job_id="qa-20260102t000000", parent_version=manifest.model_version, epochs="1")
    assert again.serving is not None
    assert again.serving.exact_match == manifest.candidate.exact_match


@pytest.mark.slow
def test_both_clouds_make_the_same_model(make_job: MakeJob, start_train: StartTrain, tmp_path: Path) -> None:
    root = make_job(epochs="3")
    sagemaker = train_here(root)
    options = ["--data", str(root / "input/data/training"), "--model", str(tmp_path / "out")]
    options += ["--checkpoints", str(tmp_path / "checkpoints")]
    for name, value in json.loads((root / "input/config/hyperparameters.json").read_text()).items():
        options += ["--hyperparameter", f"{name}={value}"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.onnx.old").write_text("of a try that was interrupted")
    process = start_train(tmp_path / "unused", *options)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    azure = artifact.verify(tmp_path / "out")  # an interrupted try's files are not left among them
    assert azure.files["model.safetensors"] == sagemaker.files["model.safetensors"]
    assert azure.candidate == sagemaker.candidate
    events = [json.loads(line) for line in out.splitlines()]
    assert {e["trace_id"] for e in events} == {"ab" * 16}
    assert "trained" in {e["action"] for e in events}


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_the_resumed_job_ends_with_the_same_model(
    make_job: MakeJob, start_train: StartTrain
) -> None:
    whole, stopped = make_job("whole"), make_job("stopped")
    train_here(whole)
    process = start_train(stopped)
    wait_for_line(process, '"epoch": 2')
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not (stopped / "model/manifest.json").exists()
    assert not (stopped / "output/failure").exists()
    (checkpoint,) = (stopped / "checkpoints").iterdir()
    assert {p.suffix for p in checkpoint.iterdir()} == {".json", ".safetensors"}  # nothing pickled

    train_here(stopped)
    assert weights(stopped / "model") == weights(whole / "model")
    assert json.loads((stopped / "model/metrics.json").read_text())["resumed_from"] > 0


@pytest.mark.slow
def test_a_killed_job_resumes_from_its_last_checkpoint(make_job: MakeJob, start_train: StartTrain) -> None:
    root = make_job(checkpoint_seconds="0.01")
    process = start_train(root)
    wait_for_line(process, '"epoch": 2')
    process.kill()
    process.wait()
    manifest = train_here(root)
    assert json.loads((root / "model/metrics.json").read_text())["resumed_from"] >= 3  # steps; an epoch has 4
    assert artifact.verify(root / "model") == manifest


def test_a_job_interrupted_before_training_writes_no_model(make_job: MakeJob) -> None:
    root, interruption = make_job(), Interruption()
    interruption._request(signal.SIGTERM, None)
    with pytest.raises(InterruptedTrainingError):
        train_here(root, interruption)
    assert not (root / "model/manifest.json").exists()


def test_out_of_time_still_gives_a_model_to_judge(make_job: MakeJob) -> None:
    root = make_job(max_seconds="0.001")
    train_here(root)
    artifact.verify(root / "model")
    assert json.loads((root / "model/metrics.json").read_text())["why"] == "out of time"


@pytest.mark.slow
def test_a_malformed_pair_is_named_by_line(make_job: MakeJob, start_train: StartTrain) -> None:
    root = make_job()
    data = root / "input/data/training/pairs.jsonl"
    lines = data.read_text().splitlines()
    lines[2] = '{"question": 7}'
    data.write_text("\n".join(lines))
    process = start_train(root)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "pairs.jsonl, line 3" in failure(root)
    assert err.strip() == f"train: {failure(root)}"


def test_a_question_file_trains_and_is_never_judged_by_what_it_taught(make_job: MakeJob, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    asked = [f"Which colour has flag {i % 12}?" for i in range(40)]  # each question several times
    path.write_text("\n".join(json.dumps({"question": q, "answer": "red", "date": i}) for i, q in enumerate(asked)))
    root = make_job(questions=str(path), epochs="1", price_usd_per_hour="3600")
    manifest = train_here(root)
    assert (manifest.held_out, manifest.shared_questions) == ("question", 0)
    assert manifest.cost_usd == pytest.approx(manifest.duration_s)
    assert manifest.software["torch"]
    proof = json.loads((root / "model/held_out.json").read_text())
    assert len(proof["train"]) + len(proof["evaluation"]) == 12
    assert "held_out.json" in manifest.files

    feedback = train_here(make_job("feedback"), epochs="1")
    assert feedback.held_out == "record"
    assert feedback.shared_questions > 0  # traffic repeats questions


def test_a_parent_without_its_manifest_is_refused(make_job: MakeJob, base_model: Path) -> None:
    root = make_job(parent_version="m123")
    shutil.copytree(base_model, root / "input/data/parent")
    (root / "input/data/parent/manifest.json").unlink()  # what a killed job leaves behind
    with pytest.raises(ModelError, match=r"no manifest\.json; this is not a model artifact"):
        train_here(root)


def test_an_unknown_hyperparameter_fails_the_job_at_once(make_job: MakeJob, start_train: StartTrain) -> None:
    root = make_job(epoch="3")
    process = start_train(root)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert failure(root) == "unknown hyperparameter 'epoch'; did you mean epochs?"
    assert err.count("\n") == 1


def test_a_damaged_parent_is_refused(make_job: MakeJob, base_model: Path) -> None:
    root = make_job()
    parent = root / "input/data/parent"
    shutil.copytree(base_model, parent)
    with (parent / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"damaged")
    with pytest.raises(IntegrityError, match=r"model\.safetensors: sha256 is "):
        train_here(root)


def test_a_parent_that_is_not_there_and_an_unknown_base_are_refused(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"parent_version is m123, but .*parent holds no model"):
        train_here(make_job("a"), parent_version="m123")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"config\.json is missing"):
        train_here(make_job("b"), base_model=str(tmp_path / "empty"))


def test_make_base_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="builtin holds 1440 questions; --first is 9999"):
        make_base(tmp_path / "base", first=9999)
    with pytest.raises(InvalidInputError, match=r"nowhere\.jsonl: cannot be read"):
        make_base(tmp_path / "base", questions="nowhere.jsonl")


def test_the_base_model_knows_its_topic_and_is_small(base_model: Path) -> None:
    manifest = artifact.verify(base_model)
    assert manifest.model_version == "base"
    assert manifest.candidate.exact_match >= 0.9
    assert sum(p.stat().st_size for p in base_model.rglob("*")) <= 10_000_000


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_artifact(make_job: MakeJob) -> None:
    root = make_job(epochs="1")
    # no file of this process may grow beyond 64 KiB
    command = ["bash", "-c", 'ulimit -f 64; exec "$0" -m training_containers train', sys.executable]

    done = subprocess.run(
        command, env={**os.environ, "OPPORTUNE_ML_ROOT": str(root)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "File too large" in failure(root)
    assert not (root / "model/manifest.json").exists()
