"""Tokenization around an engine's network: prompts to token ids, the context's limit, token ids to answers."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from shared.errors import InvalidInputError, ModelError
from training_containers.model.engines.gpt2_graph import WEIGHTS, read_config
from training_containers.model.engines.protocol import Answer, Bits

SMALL_MODEL_BYTES: Final = 40_000_000  # below this a second thread costs more than it brings


class TextEngine(abc.ABC):
    """An `Engine` but for the network: `generate_ids` is what one adds."""

    precision: Bits
    agreement: float | None = None

    def __init__(self, model_dir: Path) -> None:
        """Read configuration and tokenizer.

        Raises:
            ModelError: they are missing or damaged, or the model is not a GPT-2.
        """
        self.config = read_config(model_dir)
        self.tokenizer = _load_tokenizer(model_dir)

    @abc.abstractmethod
    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """New token ids of each row, up to limits[row], including the end-of-text token where it came."""

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt. Text that looks like a special token is plain text: users must not end a prompt."""
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids

    def check(self, prompt: str, max_new_tokens: int) -> None:
        """Raises InvalidInputError when prompt and answer do not fit into the model's context."""
        self._fitting(self.encode(prompt), max_new_tokens)

    def _fitting(self, ids: list[int], max_new_tokens: int) -> list[int]:
        room = self.config.n_positions - max_new_tokens
        if not 0 < len(ids) <= room:
            raise InvalidInputError(
                f"the prompt has {len(ids)} tokens; with max_new_tokens {max_new_tokens} there is room for {room}"
            )
        return ids

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]:
        """The greedy continuation of each prompt, in order.

        Raises:
            InvalidInputError: a prompt does not fit; none is answered.
        """
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        rows = [self._fitting(self.encode(p), n) for p, n in zip(prompts, limits, strict=True)]
        return [self._answer(ids) for ids in self.generate_ids(rows, limits)] if rows else []

    def _answer(self, ids: list[int]) -> Answer:
        finished = bool(ids) and ids[-1] in self.config.eos_ids
        kept = ids[:-1] if finished else ids
        return Answer(self.tokenizer.decode(kept).strip(), tuple(kept), finished)


def threads_for(model_dir: Path, threads: int) -> int:
    """`threads`, or for 0: one for a small model, every usable core for a large one."""
    weights = model_dir / WEIGHTS
    small = weights.is_file() and weights.stat().st_size < SMALL_MODEL_BYTES
    return threads or (1 if small else max(1, int(usable_cores())))


def usable_cores() -> float:
    """Cores this process may use: its CPU affinity, less when a cgroup quota says so."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, int(limit) / int(period))
    return cores


def _load_tokenizer(model_dir: Path) -> Any:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path}: not found; a model directory holds config.json, model.safetensors, tokenizer.json")
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as exc:  # tokenizers raises bare Exception for a file it cannot parse
        raise ModelError(f"{path}: not a tokenizer: {exc}") from exc
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer
