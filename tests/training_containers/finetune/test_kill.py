"""kill -9 and SIGTERM at random moments: every resume completes, with the model of an undisturbed run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.artifact import MANIFEST
from shared.errors import ModelError
from tests.training_containers.finetune.conftest import HYPERPARAMETERS, drifted, write_pairs
from training_containers.model import artifact

MOMENTS = 20
SEED = 20260101
#: a job that is killed again and again has to get somewhere: this many times in a row, then it is left alone
KILLS_PER_JOB = 4
#: the first moment is no matter of chance: a checkpoint is half written
IN_A_CHECKPOINT = {"signal": int(signal.SIGKILL), "folder": "/checkpoints", "event": 8, "delay_s": 0.0}


class Jobs:
    """Jobs in SageMaker's layout, each run in a process of its own."""

    def __init__(self, folder: Path, base_model: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        shutil.copytree(base_model, self.base)
        config = json.loads((self.base / "config.json").read_text())
        # with dropout, so that the state of the random numbers matters too
        config.update(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)
        (self.base / "config.json").write_text(json.dumps(config))
        (self.base / MANIFEST).unlink()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked_training.py"))],
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def make(self, name: str | None = None) -> Path:
        root = self.folder / (name or f"job-{len(list(self.folder.glob('job-*.log')))}")
        write_pairs(root / "input/data/training/pairs.jsonl", drifted())
        hyper = HYPERPARAMETERS | {"base_model": str(self.base), "epochs": "5", "checkpoint_seconds": "0.08"}
        (root / "input/config").mkdir()
        (root / "input/config/hyperparameters.json").write_text(json.dumps(hyper))
        return root

    def run(self, root: Path, **moment: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        Path(f"{root}.hit").unlink(missing_ok=True)
        self.process.stdin.write(json.dumps({"root": str(root), **moment}) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told | {"hit": Path(f"{root}.hit").exists()}


@pytest.fixture
def jobs(tmp_path: Path, base_model: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path, base_model)
    yield jobs
    jobs.process.kill()
    jobs.process.communicate()


def loadable(folder: Path) -> bool:
    """Whether the loader takes what lies there."""
    try:
        artifact.verify(folder)
    except ModelError:
        return False
    return True


def same(folder: Path, reference: Path) -> bool:
    files = [p.relative_to(reference) for p in reference.rglob("*") if p.is_file()]
    names = [p for p in files if p.name not in (MANIFEST, "metrics.json")]
    return all(artifact.sha256_of(folder / n) == artifact.sha256_of(reference / n) for n in names)


def random_moment(rng: random.Random, seconds: float) -> dict[str, Any]:
    """Any time of the job, or while it writes a checkpoint or the artifact: those are short, and matter most."""
    sent = {"signal": int(rng.choice([signal.SIGKILL, signal.SIGTERM]))}
    kind = rng.choice(["any", "checkpoint", "artifact"])
    if kind == "any":
        return sent | {"event": None, "delay_s": rng.uniform(0, seconds)}
    if kind == "checkpoint":
        return sent | {"folder": "/checkpoints", "event": rng.randint(1, 60), "delay_s": rng.choice([0, 0.001, 0.01])}
    return sent | {"folder": "/model", "event": rng.randint(1, 40), "delay_s": rng.uniform(0, 0.1)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments_every_resume_ends_with_the_same_model(jobs: Jobs) -> None:
    whole = jobs.make("whole")
    undisturbed = jobs.run(whole)
    assert undisturbed["exit"] == 0, Path(f"{whole}.log").read_text()

    rng = random.Random(SEED)
    moments: list[dict[str, Any]] = []
    where: set[str] = set()
    exits: set[int] = set()
    root, kills = jobs.make(), 0
    while len(moments) < MOMENTS:
        moment = random_moment(rng, undisturbed["seconds"]) if moments else IN_A_CHECKPOINT
        story = f"seed {SEED}, {root.name}, moments {[*moments, moment]}, log {root}.log"
        told = jobs.run(root, **moment) if kills < KILLS_PER_JOB else jobs.run(root)
        if told["hit"]:
            moments.append(moment)
            exits.add(told["exit"])
            kills += 1
            where.update(p.name.split("-")[0] for p in [*root.glob("checkpoints/*"), *root.glob("model/*")])
        if loadable(root / "model"):
            assert same(root / "model", whole / "model"), f"the loader takes another model: {story}"
        if told["exit"] == 0:
            assert loadable(root / "model"), f"done, but cannot be loaded: {story}"
            root, kills = jobs.make(), 0
        else:
            assert told["hit"], f"failed by itself: {story}"
            assert told["exit"] in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), story
    assert jobs.run(root)["exit"] == 0
    assert same(root / "model", whole / "model"), f"seed {SEED}, {root.name}, moments {moments}"
    # the moments were where it hurts: in a checkpoint, in an artifact, and both signals did what they do
    assert {"checkpoint", ".checkpoint", "config.json"} <= where, where
    assert {-signal.SIGKILL, 128 + signal.SIGTERM} <= exits, exits
