"""The version that a service begins with: a model of the Hugging Face hub or of a folder, as a model artifact.

It is named by its content, so that the same model is the same version wherever and however often it is made.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from shared.artifact import MANIFEST
from shared.contracts import FeedbackPair, Metrics, ModelManifest
from training_containers.model.artifact import hash_files, verify, write_manifest

log = logging.getLogger(__name__)

#: what `make-base` calls its model: a name, not a version of its own
_BASE: Final = "base"
#: the engines are compared, and the model is judged, on so many of the built-in questions
_QUESTIONS: Final = 64


def first_version(name: str, cache: Path, service: str) -> tuple[Path, ModelManifest]:
    """The folder and the manifest of the model `name`; made once, then found below `cache`.

    Raises:
        InvalidInputError: no such model.
        ModelError: it cannot be used.
    """
    artifact = Path(name) if (Path(name) / MANIFEST).is_file() else None
    if artifact is not None:
        manifest = verify(artifact)
        if manifest.model_version != _BASE:
            return artifact, manifest
    with tempfile.TemporaryDirectory() as scratch:
        base = artifact or _resolved(name, Path(scratch))
        folder = cache / _key(base, service)
        if (folder / MANIFEST).is_file():
            return folder, verify(folder)
        making = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        if (base / MANIFEST).is_file():
            shutil.copytree(base, making)
            manifest = verify(making)
        else:
            manifest = _made(base, making, name, service)
        version = "m" + hashlib.sha256(msgspec.json.encode(manifest.files, order="sorted")).hexdigest()[:10]
        manifest = msgspec.structs.replace(manifest, model_version=version, service=service)
        write_manifest(making, manifest)
        making.replace(folder)
    return folder, manifest


def _resolved(name: str, scratch: Path) -> Path:
    from training_containers.finetune.torch_model import resolve_base  # torch: seconds, so not for an artifact

    return resolve_base(name, scratch)


def _key(base: Path, service: str) -> str:
    """A name that changes with the model's content."""
    files = {name: sha256 for name, sha256 in hash_files(base).items() if "/" not in name}
    return hashlib.sha256(msgspec.json.encode([service, files], order="sorted")).hexdigest()[:16]


def _made(base: Path, out: Path, name: str, service: str) -> ModelManifest:
    """The artifact's files in `out`, and its manifest but for the version."""
    from training_containers.finetune.data.pairs import digest
    from training_containers.finetune.data.question_sources import load_questions
    from training_containers.finetune.loop.evaluation import evaluate
    from training_containers.finetune.loop.trainer import quiet
    from training_containers.finetune.torch_model import load_model, save_model_files
    from training_containers.model.engines.precision import add_int8
    from training_containers.model.prompt import prompt_for

    started_s = time.time()
    quiet()
    save_model_files(load_model(base), base, out)
    known = load_questions("builtin")[:_QUESTIONS]
    pairs = [FeedbackPair(question=q.question, answers=q.answers[:32], received_s=q.when) for q in known]
    int8 = add_int8(out, [prompt_for(pair.question) for pair in pairs])
    metrics: Metrics = evaluate(out, pairs)
    log.info("artifact made", extra={"action": "first-version", "model": name, "int8_agreement": int8.agreement})
    return ModelManifest(
        service=service,
        model_version=_BASE,
        parent_version="none",
        job_id="first",
        trace_id="0" * 32,
        created_s=started_s,
        base_model=name,
        data_start_s=pairs[0].received_s,
        data_end_s=pairs[-1].received_s,
        data_sha256=digest(pairs),
        train_examples=0,
        eval_sha256=digest(pairs),
        candidate=metrics,
        serving=None,
        int8_agreement=int8.agreement,
        duration_s=time.time() - started_s,
        files=hash_files(out),
    )
