"""Models of real shapes with random weights, as artifacts that the server accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from shared.artifact import MANIFEST
from shared.contracts import Metrics, ModelManifest
from training_containers.model.artifact import hash_files, write_manifest


class Files(Protocol):
    """The part of an object store that is needed here."""

    def put(self, key: str, body: bytes) -> None: ...


#: layers, width, heads, vocabulary
SHAPES = {"small": (2, 128, 4, 4096), "distilgpt2": (6, 768, 12, 50257)}
_END = "<|endoftext|>"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_model(folder: Path, shape: str, seed: int) -> Path:
    """Random weights of a real shape and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    layers, width, heads, vocabulary = SHAPES[shape]
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            vocab_size=vocabulary,
            eos_token_id=vocabulary - 1,
            bos_token_id=vocabulary - 1,
        )
    )
    with torch.no_grad():
        for block in model.transformer.h.parameters():
            # a narrow network's small random weights change too little: it would repeat its last token
            if block.ndim == 2:
                block.mul_(768 / width)
    model.save_pretrained(folder)
    # every byte is a token; the rest of the vocabulary can be said but never read
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {f"<{i}>": i for i in range(len(vocab), vocabulary - 1)} | {_END: vocabulary - 1}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        f'{{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "{_END}", "bos_token": "{_END}", '
        f'"unk_token": "{_END}"}}'
    )
    return folder


def make_questions(count: int, seed: int) -> list[str]:
    """Questions of 14 letters, so that the prompt around them has 32 of the random models' tokens."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(_LETTERS), 14)) for _ in range(count)]


def stamp(folder: Path, version: str, **fields: Any) -> None:
    """Make a finished model directory an artifact of `version`; `fields` are further ones of its manifest."""
    unknown = Metrics(bleu1=0.0, exact_match=0.0, f1=0.0, rouge_l=0.0, examples=0)
    plain = ModelManifest(
        service="qa",
        model_version=version,
        parent_version="none",
        job_id="benchmark",
        trace_id="0" * 32,
        created_s=0.0,
        base_model="random",
        data_start_s=0.0,
        data_end_s=0.0,
        data_sha256="0" * 64,
        train_examples=0,
        eval_sha256="0" * 64,
        candidate=unknown,
        serving=None,
        duration_s=0.0,
        files=hash_files(folder),
    )
    write_manifest(folder, msgspec.structs.replace(plain, **fields))


def put_version(store: Files, folder: Path, prefix: str) -> None:
    """Put an artifact's files below the prefix, the manifest last."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.name == MANIFEST):
        if path.is_file():
            store.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())
