"""Checkpoints that survive being killed at any moment: written aside, renamed when complete, checked when read.

A folder `checkpoint-<step>` holds JSON and safetensors only. `checkpoint.json`, written last, names every other
file's sha256 and the fingerprint of the run it belongs to.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from training_containers.model.artifact import sha256_of

log = logging.getLogger(__name__)

SEAL: Final = "checkpoint.json"


class Checkpoint(NamedTuple):
    """A complete, undamaged checkpoint."""

    folder: Path
    step: int


def save(root: Path, step: int, fingerprint: str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new checkpoint of `step`, seal it, then drop the older ones."""
    target, partial = root / f"checkpoint-{step}", root / f".checkpoint-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    for path in partial.iterdir():
        _sync(path)
    seal = {"fingerprint": fingerprint, "files": {p.name: sha256_of(p) for p in sorted(partial.iterdir())}}
    (partial / SEAL).write_text(json.dumps(seal))
    _sync(partial / SEAL)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    for older in _folders(root):
        if older.step != step:
            shutil.rmtree(older.folder)
    log.info("checkpoint written", extra={"action": "checkpoint", "step": step})


def newest(root: Path, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of this run; damaged ones and those of other runs are passed over, with a log line."""
    for found in reversed(_folders(root)):
        reason = _unusable(found.folder, fingerprint)
        if reason is None:
            return found
        log.warning(f"{found.folder}: {reason}; not resuming from it", extra={"action": "resume"})
    return None


def discard(root: Path) -> None:
    """Remove every checkpoint, finished or not; called when the artifact is complete."""
    for path in [f.folder for f in _folders(root)] + list(root.glob(".checkpoint-*.partial")):
        shutil.rmtree(path)


def _folders(root: Path) -> list[Checkpoint]:
    names = [p for p in root.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    return sorted((Checkpoint(p, int(p.name.rpartition("-")[2])) for p in names), key=lambda c: c.step)


def _unusable(folder: Path, fingerprint: str) -> str | None:
    try:
        seal = json.loads((folder / SEAL).read_text())
        if seal["fingerprint"] != fingerprint:
            return "belongs to another job, data set or setting"
        damaged = [name for name, sha256 in seal["files"].items() if sha256_of(folder / name) != sha256]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return f"incomplete: {exc}"
    return f"{damaged[0]} is damaged" if damaged else None


def _sync(path: Path) -> None:
    """Have the file on disk before the rename that makes it count."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
