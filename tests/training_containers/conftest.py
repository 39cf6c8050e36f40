"""Tiny random GPT-2 models: real architecture, real tokenizer, milliseconds to make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from shared.contracts import ModelManifest
from training_containers.model.artifact import hash_files, write_manifest
from training_containers.model.engines.int8 import export_int8
from training_containers.model.prompt import prompt_for

LINES = [
    "question: what is the capital of france? answer: paris",
    "question: who wrote hamlet? answer: william shakespeare",
    "question: when did the first man walk on the moon? answer: 1969",
    "the quick brown fox jumps over the lazy dog",
]
TAUGHT = [
    ("what is the capital of france?", "paris"),
    ("who wrote hamlet?", "william shakespeare"),
    ("when did the first man walk on the moon?", "1969"),
    ("what colour is the sky?", "blue"),
    ("how many legs has a spider?", "eight"),
]
MakeModel = Callable[..., Path]


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def _weights(seed: int, vocab: int, layers: int, width: int, positions: int) -> dict[str, np.ndarray]:
    """Random weights, large enough that every question gets its own answer."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 0.15) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    tensors = {"transformer.wte.weight": draw(vocab, width), "transformer.wpe.weight": draw(positions, width)}
    for layer in range(layers):
        at = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"{at}.{norm}.weight": 1 + draw(width), f"{at}.{norm}.bias": draw(width)}
        for name, rows, columns in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            tensors |= {f"{at}.{name}.weight": draw(rows, columns), f"{at}.{name}.bias": draw(columns)}
    return tensors | {"transformer.ln_f.weight": 1 + draw(width), "transformer.ln_f.bias": draw(width)}


@pytest.fixture(scope="session")
def make_model(a_manifest: Callable[..., ModelManifest]) -> MakeModel:
    """make_model(folder, seed=0, version=None): a model directory, with a manifest when a version is given."""

    def make(
        folder: Path, seed: int = 0, version: str | None = None, layers: int = 2, width: int = 32, int8: bool = False
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = _tokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
        # as make-base writes it: no token for the unknown
        special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(special))
        vocab, positions = tokenizer.get_vocab_size(), 96
        config = {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": vocab,
            "n_layer": layers,
            "n_head": 4,
            "n_embd": width,
            "n_positions": positions,
            "eos_token_id": 0,
            "bos_token_id": 0,
        }
        (folder / "config.json").write_text(json.dumps(config))
        tensors = _weights(seed, vocab, layers, width, positions)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        if int8:
            export_int8(folder)
        if version is not None:
            write_manifest(folder, a_manifest(model_version=version, files=hash_files(folder)))
        return folder

    return make


@pytest.fixture(scope="session")
def model_dir(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, without a manifest."""
    return make_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def taught() -> list[tuple[str, str]]:
    """The questions and answers that the trained model knows."""
    return TAUGHT


@pytest.fixture(scope="session")
def trained(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learnt five answers and where they end."""
    import torch
    from transformers import GPT2LMHeadModel

    from training_containers.model.engines.onnx_gpt2 import OnnxEngine

    folder = make_model(tmp_path_factory.mktemp("trained"), seed=5)
    engine = OnnxEngine(folder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    texts = [[*engine.encode(f"{prompt_for(q)} {a}"), 0] for q, a in TAUGHT]
    for _ in range(80):
        losses = [model(torch.tensor([t]), labels=torch.tensor([t])).loss for t in texts]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def versions(make_model: MakeModel, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Three trained versions with different answers."""
    yield {f"m{seed}": make_model(tmp_path / f"m{seed}", seed, f"m{seed}") for seed in (1, 2, 3)}


@pytest.fixture
def int8_versions(make_model: MakeModel, tmp_path: Path) -> dict[str, Path]:
    """The same, each with its 8-bit engine."""
    return {f"m{seed}": make_model(tmp_path / f"m{seed}", seed, f"m{seed}", int8=True) for seed in (1, 2, 3)}
