"""Loading and saving of the torch model: from a base model or a parent artifact, and back to an artifact's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from transformers import GPT2LMHeadModel

from shared.artifact import MANIFEST
from shared.errors import InvalidInputError, ModelError
from training_containers.finetune.model_download import fetch_model, is_address
from training_containers.model.artifact import verify
from training_containers.model.engines.gpt2_graph import export_onnx

_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def resolve_base(name: str, scratch: Path, env: Mapping[str, str] = os.environ) -> Path:
    """The folder of a base model: `name` itself, or fetched from an object store or the Hugging Face hub.

    What comes from a store, with the credentials in `env`, goes into `scratch`; the hub has a cache of its own.

    Raises:
        InvalidInputError: neither a model folder nor an address or name that can be fetched.
        ModelError: the model has a manifest, and is not what it says.
    """
    folder = Path(name)
    if is_address(name):
        folder = scratch / "base"
        fetch_model(name, folder, env)
    if folder.is_dir():
        if (folder / MANIFEST).is_file():
            verify(folder)
        for needed in ("config.json", "model.safetensors", "tokenizer.json"):
            if not (folder / needed).is_file():
                raise InvalidInputError(f"base_model {name}: {needed} is missing")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", "generation_config.json", "model.safetensors", *_TOKENIZER_FILES]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as exc:
        raise InvalidInputError(
            f"base_model {name}: not a folder here, and cannot be fetched from the Hugging Face hub"
        ) from exc


def load_model(folder: Path) -> GPT2LMHeadModel:
    """The GPT-2 in `folder`, fp32, from safetensors only.

    Raises:
        ModelError: the folder holds no usable GPT-2.
    """
    try:
        return GPT2LMHeadModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as exc:
        raise ModelError(f"{folder}: not a usable GPT-2 model: {exc}") from exc


def emptied(folder: Path) -> None:
    """Make the folder, or remove what is in it, a manifest first: it would vouch for what is going."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def save_model_files(model: GPT2LMHeadModel, tokenizer_from: Path, folder: Path) -> None:
    """Write weights, configuration, tokenizer and engine file into `folder`, which is emptied first."""
    emptied(folder)
    model.save_pretrained(folder)
    # written private; another user than the one who trains may serve it
    (folder / "model.safetensors").chmod(0o644)
    for name in _TOKENIZER_FILES:
        if (tokenizer_from / name).is_file():
            shutil.copyfile(tokenizer_from / name, folder / name)
    export_onnx(folder)
