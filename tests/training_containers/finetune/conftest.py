"""A tiny base model, made once for all test processes, and jobs in SageMaker's layout that start from it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from shared.artifact import MANIFEST
from shared.contracts import FeedbackPair, encode
from training_containers.finetune.data.question_sources import Question, load_questions

#: how many of the oldest builtin questions the base model knows
KNOWN = 48
HYPERPARAMETERS = {
    "job_id": "qa-20260101t000000",
    "service": "qa",
    "trace_id": "ab" * 16,
    "epochs": "12",
    "learning_rate": "0.002",
    "batch_size": "32",
    "stop_loss": "0",
}

MakeJob = Callable[..., Path]
StartTrain = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights are equal to the bit only at one number of threads, and tests that ran before may have changed it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that knows the first 48 builtin questions."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # shared by the workers of this run
    folder = root / "finetune-base"
    with (root / "finetune-base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / MANIFEST).exists():
            command = [sys.executable, "-m", "training_containers", "make-base", "--out", str(folder)]
            subprocess.run([*command, "--first", str(KNOWN)], check=True, capture_output=True, timeout=280)
    return folder


def drifted(known: int = 40, new: int = 80) -> list[Question]:
    """Questions the base model knows, then new ones, the last quarter of them asked a second time."""
    everything = load_questions("builtin")
    fresh = [q for q in everything if q.topic == "games"][:new]
    return [*everything[:known], *fresh, *fresh[-new // 4 :]]


def write_pairs(path: Path, questions: Iterable[Question]) -> None:
    """Feedback, one pair per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = [
        FeedbackPair(question=q.question, answers=q.answers, received_s=1000.0 + i) for i, q in enumerate(questions)
    ]
    path.write_bytes(b"\n".join(encode(pair) for pair in pairs))


@pytest.fixture
def make_job(tmp_path: Path, base_model: Path) -> MakeJob:
    """Lays out a SageMaker job over drifted traffic; returns its root."""

    def make(name: str = "ml", **hyperparameters: str) -> Path:
        root = tmp_path / name
        write_pairs(root / "input/data/training/pairs.jsonl", drifted())
        config = root / "input/config/hyperparameters.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps(HYPERPARAMETERS | {"base_model": str(base_model)} | hyperparameters))
        return root

    return make


@pytest.fixture
def start_train() -> Iterator[StartTrain]:
    """Starts the container's `train` command over a root; whatever still runs is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(root: Path, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "training_containers", "train", *options],
            env={**os.environ, "OPPORTUNE_ML_ROOT": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # torchrun, where there is one, takes its processes along
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
