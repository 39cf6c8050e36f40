"""The small base model of a run: made once per content of its inputs, then found again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from local.demo.question_pool import write_taught
from local.demo.scenario import Pool
from shared.errors import InvalidInputError, OpportuneError

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / "build" / "base-model"
#: what the model depends on besides its questions
SOURCES: Final = ("training_containers/finetune", "training_containers/model/prompt.py")


class BaseModelError(OpportuneError):
    """The base model could not be made."""


def base_model(pool: Pool, *, builtin: bool, console: Console) -> Path:
    """The folder of the base model that knows the pool's taught questions; made on the first call (about a minute).

    Raises:
        BaseModelError: its training failed; the message holds the end of its log.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    taught = CACHE / "taught.jsonl"
    write_taught(pool, taught)
    key = _key(b"builtin" if builtin else taught.read_bytes())
    folder = CACHE / key
    if (folder / "manifest.json").exists():
        return folder
    making = CACHE / f"{key}.making"
    shutil.rmtree(making, ignore_errors=True)
    command = [sys.executable, "-m", "training_containers", "make-base", "--out", str(making)]
    if not builtin:
        questions = CACHE / f"{key}.jsonl"
        taught.replace(questions)
        count = len(questions.read_text(encoding="utf-8").splitlines())
        command += ["--questions", str(questions), "--first", str(count)]
    with console.status("making the base model, once (about a minute)"):
        # A model this small gains nothing from a second thread, and loses much when the cores are shared.
        env = {"OMP_NUM_THREADS": "1", **os.environ}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise InvalidInputError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "make-base failed")
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise BaseModelError(f"the base model could not be made (exit code {done.returncode}):\n{tail}")
    making.replace(folder)
    return folder


def _key(questions: bytes) -> str:
    """A name that changes with the questions and with the code that makes the model."""
    digest = hashlib.sha256(questions)
    for source in SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]
