"""The `make-base` command: a GPT-2 for a laptop, with a tokenizer of its own, that knows the first topic only."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from shared.contracts import FeedbackPair, ModelManifest
from shared.errors import InvalidInputError
from training_containers.finetune.data.pairs import digest
from training_containers.finetune.data.question_sources import Question, load_questions
from training_containers.finetune.loop.encoding import encode_pairs, load_tokenizer
from training_containers.finetune.loop.evaluation import evaluate
from training_containers.finetune.loop.trainer import Plan, fit, quiet
from training_containers.finetune.torch_model import save_model_files
from training_containers.model.artifact import hash_files, write_manifest
from training_containers.model.engines.precision import add_int8
from training_containers.model.prompt import prompt_for

log = logging.getLogger(__name__)

END: Final = "<|endoftext|>"
VOCABULARY: Final = 3072
LEARNING_RATE: Final = 2e-3
BATCH_SIZE: Final = 32


def make_base(
    out: Path, *, questions: str = "builtin", first: int | None = None, epochs: int = 30, seed: int = 0
) -> ModelManifest:
    """Train a 2-layer, 128-wide GPT-2 on the oldest questions and write it as a model artifact into `out`.

    Args:
        first: how many of the oldest questions it learns; None = the first topic (builtin), else the first 500.

    Raises:
        InvalidInputError: the questions cannot be read, or there are fewer than `first`.
    """
    started_s = time.time()
    quiet()
    all_questions = load_questions(questions)
    known = _oldest(all_questions, first, questions)
    pairs = [FeedbackPair(question=q.question, answers=q.answers[:32], received_s=q.when) for q in known]
    # the builtin text gives the tokenizer its words, also of topics that the model does not know yet
    corpus = {q.question: q for q in [*load_questions("builtin"), *known]}.values()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train_tokenizer([f"{prompt_for(q.question)} {q.answers[0].lower()}" for q in corpus], folder)
        tokenizer = load_tokenizer(folder)
        model = _new_model(tokenizer.get_vocab_size(), tokenizer.token_to_id(END), seed)
        examples, _ = encode_pairs(tokenizer, pairs, model.config.eos_token_id, model.config.n_positions)
        plan = Plan(epochs, LEARNING_RATE, BATCH_SIZE, seed, 0.01, 600.0, 600.0, folder / "checkpoints", "base")
        outcome = fit(model, examples, plan, lambda: False)
        save_model_files(model, folder, out)
    metrics = evaluate(out, pairs)
    int8 = add_int8(out, [prompt_for(p.question) for p in pairs])
    manifest = ModelManifest(
        service="qa",
        model_version="base",
        parent_version="none",
        job_id="make-base",
        trace_id="0" * 32,
        created_s=time.time(),
        base_model="gpt2-2x128",
        data_start_s=pairs[0].received_s,
        data_end_s=pairs[-1].received_s,
        data_sha256=digest(pairs),
        train_examples=len(examples),
        # the base model is judged on what it was taught: it is a starting point, not a candidate
        eval_sha256=digest(pairs),
        candidate=metrics,
        serving=None,
        int8_agreement=int8.agreement,
        duration_s=time.time() - started_s,
        files=hash_files(out),
    )
    write_manifest(out, manifest)
    log.info(
        "base model made",
        extra={
            "action": "make-base",
            "exact_match": metrics.exact_match,
            "epochs": outcome.epochs,
            "duration_s": round(manifest.duration_s, 1),
        },
    )
    return manifest


def _oldest(questions: Sequence[Question], first: int | None, spec: str) -> Sequence[Question]:
    if first is None:
        topic = questions[0].topic
        first = sum(q.topic == topic for q in questions) if topic else min(500, len(questions))
    if not 1 <= first <= len(questions):
        raise InvalidInputError(f"{spec} holds {len(questions)} questions; --first is {first}")
    return questions[:first]


def train_tokenizer(texts: Sequence[str], folder: Path) -> None:
    """A byte-level BPE, so that any text can be encoded; written as tokenizer.json and its configuration."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END, "bos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _new_model(vocabulary: int, end_id: int, seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=256,
            n_embd=128,
            n_layer=2,
            n_head=4,
            # wider than GPT-2's 0.02, which is meant for wide layers: at 128 it learns several times faster
            initializer_range=0.05,
            # a model this small has nothing to spare for dropout
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end_id,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
    )
