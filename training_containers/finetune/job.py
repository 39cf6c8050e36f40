"""One training job from its data channel to a verified artifact. Knows no cloud: see `layouts.py` for the paths."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from transformers import GPT2LMHeadModel

from shared.contracts import FeedbackPair, ModelManifest
from shared.errors import InvalidInputError
from training_containers.finetune.data import held_out
from training_containers.finetune.data.pairs import Split, digest, pairs_from_questions, read_pairs, split_by_time
from training_containers.finetune.hyperparameters import Hyperparameters
from training_containers.finetune.loop import checkpoint, processes
from training_containers.finetune.loop.encoding import encode_pairs, load_tokenizer
from training_containers.finetune.loop.evaluation import evaluate
from training_containers.finetune.loop.hardware import Hardware, pick
from training_containers.finetune.loop.interruption import InterruptedTrainingError, Interruption
from training_containers.finetune.loop.trainer import Outcome, Plan, fit, quiet
from training_containers.finetune.torch_model import load_model, resolve_base, save_model_files
from training_containers.finetune.tracking import track
from training_containers.model.artifact import find_model, hash_files, model_version_for, sha256_of, write_manifest
from training_containers.model.engines.precision import add_int8
from training_containers.model.prompt import prompt_for

log = logging.getLogger(__name__)

METRICS_FILE: Final = "metrics.json"

#: of max_seconds; the rest is for evaluating and writing what was learnt before the service ends the job
_TRAINING_SHARE: Final = 0.8
_VALIDATION_SHARE: Final = 0.1
#: whose versions the manifest names
_SOFTWARE: Final = ("torch", "transformers", "tokenizers", "onnxruntime", "numpy")


class Folders(NamedTuple):
    """Where a job reads and writes."""

    data: Path
    parent: Path | None  # the serving model's artifact; None or absent = start from the base model
    model: Path  # the artifact's files, emptied first
    checkpoints: Path


def run_job(
    folders: Folders, hyper: Hyperparameters, interruption: Interruption, env: Mapping[str, str]
) -> ModelManifest | None:
    """Fine-tune, evaluate candidate and serving model on the same fresh records, write the artifact.

    Under torchrun all processes train and the first does the rest; the others return None. `env` is what torchrun, the
    object stores' and MLflow's clients are configured by.

    Raises:
        InvalidInputError: data, parent or hyperparameters cannot be used.
        ModelError: the parent artifact is damaged, or the evaluation set would be trained on.
        InterruptedTrainingError: SIGTERM came; the same job started again resumes.
    """
    started_s = time.time()
    quiet()
    log.info("training job started", extra={"action": "train"})
    unit: held_out.Unit = hyper.held_out or ("question" if hyper.questions else "record")
    if hyper.questions:
        pairs = pairs_from_questions(hyper.questions)
    else:
        pairs = read_pairs(folders.data, hyper.data_start_s, hyper.data_end_s)
    split = split_by_time(pairs, hyper.eval_share, hyper.max_eval, unit)
    proof = held_out.prove(split.train, split.evaluation, unit)
    with tempfile.TemporaryDirectory() as scratch:
        start = _starting_model(folders.parent, hyper, Path(scratch), env)
        model = load_model(start)
        hardware = pick(hyper.device, hyper.precision, model.config.n_embd)
        with processes.group(hardware.cuda, hyper.max_seconds, env):
            first = processes.rank() == 0
            serving = evaluate(start, split.evaluation, interruption.check) if first else None
            left_s = _TRAINING_SHARE * hyper.max_seconds - (time.time() - started_s)
            outcome, trained = _train(model, start, split.train, folders, hyper, hardware, left_s, unit, interruption)
        if serving is None:
            return None
        save_model_files(model, start, folders.model)
        candidate = evaluate(folders.model, split.evaluation, interruption.check)
        int8 = add_int8(folders.model, [prompt_for(p.question) for p in split.evaluation])
    duration_s = time.time() - started_s
    held_out.write(folders.model, proof)
    _write_metrics(folders.model, outcome, split, duration_s)
    manifest = ModelManifest(
        service=hyper.service,
        model_version=model_version_for(hyper.job_id),
        parent_version=hyper.parent_version,
        job_id=hyper.job_id,
        trace_id=hyper.trace_id,
        created_s=time.time(),
        base_model=hyper.base_model,
        data_start_s=pairs[0].received_s if hyper.data_start_s is None else hyper.data_start_s,
        data_end_s=pairs[-1].received_s if hyper.data_end_s is None else hyper.data_end_s,
        data_sha256=digest(split.train),
        train_examples=trained,
        eval_sha256=digest(split.evaluation),
        held_out=unit,
        shared_questions=proof.shared_questions,
        candidate=candidate,
        serving=serving,
        int8_agreement=int8.agreement,
        duration_s=duration_s,
        cost_usd=None if hyper.price_usd_per_hour is None else hyper.price_usd_per_hour * duration_s / 3600,
        software={name: importlib.metadata.version(name) for name in _SOFTWARE},
        files=hash_files(folders.model),
    )
    write_manifest(folders.model, manifest)
    checkpoint.discard(folders.checkpoints)
    track(manifest, hyper, env)
    facts = {
        "action": "trained",
        "model_version": manifest.model_version,
        "llm_bleu": candidate.bleu1,
        "llm_accuracy": candidate.exact_match,
        "serving_bleu": serving.bleu1,
        "serving_accuracy": serving.exact_match,
        "unseen_share": split.unseen_share,
        "why_ended": outcome.why,
        "duration_s": round(manifest.duration_s, 2),
    }
    log.info("training job done", extra=facts)
    return manifest


def _starting_model(parent: Path | None, hyper: Hyperparameters, scratch: Path, env: Mapping[str, str]) -> Path:
    sealed = hyper.parent_version != "base"
    found = find_model(parent, sealed=sealed) if parent is not None and parent.exists() else None
    if found is not None:
        return found
    if sealed:
        raise InvalidInputError(
            f"parent_version is {hyper.parent_version}, but {parent or 'no parent channel'} holds no model; "
            "pass its artifact, or parent_version base"
        )
    return resolve_base(hyper.base_model, scratch, env)


def _train(
    model: GPT2LMHeadModel,
    start: Path,
    pairs: list[FeedbackPair],
    folders: Folders,
    hyper: Hyperparameters,
    hardware: Hardware,
    max_seconds: float,
    unit: held_out.Unit,
    interruption: Interruption,
) -> tuple[Outcome, int]:
    """Train `model`, which came from `start`; returns what happened and the number of examples."""
    taught, validation = pairs, []
    if hyper.patience:
        # of the training set: the evaluation set must not have a say in which weights are kept
        part = split_by_time(pairs, _VALIDATION_SHARE, hyper.max_eval, unit)
        taught, validation = part.train, part.evaluation
    config, tokenizer = model.config, load_tokenizer(start)
    examples, too_long = encode_pairs(tokenizer, taught, config.eos_token_id, config.n_positions)
    if not examples:
        raise InvalidInputError(f"none of the {len(taught)} training pairs fits into {config.n_positions} tokens")
    if too_long:
        log.warning(f"{too_long} pairs left out: longer than the model's context", extra={"action": "encode"})
    plan = Plan(
        epochs=hyper.epochs,
        learning_rate=hyper.learning_rate,
        batch_size=hyper.batch_size,
        seed=hyper.seed,
        stop_loss=hyper.stop_loss,
        max_seconds=max(max_seconds, 0.0),
        checkpoint_seconds=hyper.checkpoint_seconds,
        checkpoints=folders.checkpoints,
        fingerprint=_fingerprint(hyper, pairs, start, hardware),
        patience=hyper.patience,
        question_weight=hyper.question_weight,
        hardware=hardware,
        compile=hyper.compile,
    )
    judged_by, _ = encode_pairs(tokenizer, validation, config.eos_token_id, config.n_positions)
    outcome = fit(model, examples, plan, interruption.requested, judged_by)
    if outcome.why == "interrupted":
        raise InterruptedTrainingError(f"interrupted at step {outcome.steps}; a restart of the same job resumes there")
    return outcome, len(examples)


def _fingerprint(hyper: Hyperparameters, pairs: Sequence[FeedbackPair], start: Path, hardware: Hardware) -> str:
    """Same job, same data, same start, same settings: only then does a checkpoint continue this run."""
    facts = [
        hyper.job_id,
        digest(pairs),
        sha256_of(start / "model.safetensors"),
        hyper.epochs,
        hyper.learning_rate,
        hyper.batch_size,
        hyper.seed,
        hyper.stop_loss,
        hyper.patience,
        hyper.question_weight,
        hardware.bf16,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write_metrics(folder: Path, outcome: Outcome, split: Split, duration_s: float) -> None:
    """What the manifest has no field for."""
    facts = {
        **outcome._asdict(),
        "train_records": len(split.train),
        "evaluation_records": len(split.evaluation),
        "unseen_share": split.unseen_share,
        "duration_s": duration_s,
    }
    (folder / METRICS_FILE).write_text(json.dumps(facts, indent=1))
