"""Greedy decoding with ONNX Runtime: numpy and tokenizers, no torch, no transformers.

Rows of a batch are right-padded; attention takes each row's own length, so an answer does not depend on its batch
mates. In fp32 it is the one Hugging Face greedy decoding gives; in int8 it is close (see `precision.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shared.errors import InvalidInputError, ModelError
from training_containers.serve.export import GRAPH, build_graph, cache_names, read_config
from training_containers.serve.int8 import GRAPH_INT8

SMALL_MODEL_BYTES: Final = 40_000_000  # below this a second thread costs more than it brings
_COMPACT_BELOW: Final = 0.75  # drop finished rows once fewer than this share is still growing
#: ONNX Runtime's exceptions have no common base but Exception
_ORT_ERRORS: Final = tuple(
    kind
    for kind in vars(ort.capi.onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)


Bits = Literal["fp32", "int8"]


class Answer(NamedTuple):
    """One generated answer."""

    text: str
    tokens: tuple[int, ...]  # without the end-of-text token
    finished: bool  # the model ended it; False when max_new_tokens did


class Engine(Protocol):
    """Turns prompts into answers; one call at a time."""

    precision: Bits
    agreement: float | None  # share of evaluation answers equal to fp32's; None for fp32 itself

    def check(self, prompt: str, max_new_tokens: int) -> None:
        """Raises InvalidInputError when the prompt cannot be answered."""
        ...

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]: ...


class OnnxEngine:
    """The engine of one model directory."""

    def __init__(self, model_dir: Path, threads: int = 0, precision: Bits = "fp32") -> None:
        """Load `model_dir`; threads 0 chooses: one for a small model, every usable core for a large one.

        Raises:
            ModelError: the directory does not hold a complete GPT-2 model, or no 8-bit graph where that is asked for.
        """
        self.precision: Bits = precision
        self.agreement: float | None = None
        self.config = read_config(model_dir)
        self._tokenizer = _load_tokenizer(model_dir)
        self._session = _load_session(model_dir, threads, precision)
        self._past = cache_names("past", self.config.n_layer)
        self._present = cache_names("present", self.config.n_layer)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt. Text that looks like a special token is plain text: users must not end a prompt."""
        ids: list[int] = self._tokenizer.encode(prompt).ids
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
        return Answer(self._tokenizer.decode(kept).strip(), tuple(kept), finished)

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """New token ids of each row, up to limits[row], including the end-of-text token where it came."""
        answers: list[list[int]] = [[] for _ in rows]
        lengths = np.array([len(r) for r in rows], np.int64)  # (B,) cached length after the coming call
        longest = int(lengths.max())
        prompt = np.zeros((len(rows), longest), np.int64)
        for i, given in enumerate(rows):
            prompt[i, : len(given)] = given
        # no row outgrows its own prompt and limit
        capacity = max(len(r) + n for r, n in zip(rows, limits, strict=True))
        cache = self.new_cache(len(rows), capacity)
        positions = np.broadcast_to(np.arange(longest), prompt.shape)
        new = self.step(prompt, np.ascontiguousarray(positions), lengths, cache)
        growing = list(range(len(rows)))  # which answer each batch row belongs to
        while True:
            for row, token in zip(growing, new.tolist(), strict=True):
                if not self.done(answers[row], limits[row]):
                    answers[row].append(token)
            alive = np.array([not self.done(answers[row], limits[row]) for row in growing])
            if not alive.any():
                return answers
            if alive.mean() <= _COMPACT_BELOW:
                growing = [row for row, kept in zip(growing, alive, strict=True) if kept]
                new, lengths = new[alive], lengths[alive]
                cache = [np.ascontiguousarray(part[alive]) for part in cache]
            # a finished row that is still in the batch repeats its last place, so it never outgrows the cache
            lengths = np.minimum(lengths + 1, capacity)
            new = self.step(new[:, None], lengths[:, None] - 1, lengths, cache)

    def done(self, answer: list[int], limit: int) -> bool:
        """Whether an answer is complete."""
        return len(answer) >= limit or (bool(answer) and answer[-1] in self.config.eos_ids)

    def new_cache(self, rows: int, capacity: int) -> list[NDArray[np.float32]]:
        """An empty cache for `rows` rows of at most `capacity` tokens."""
        c = self.config
        shape = (rows, c.n_head, capacity, c.n_embd // c.n_head)
        return [np.zeros(shape, np.float32) for _ in self._past]

    def step(
        self,
        ids: NDArray[np.int64],  # (B, S)
        positions: NDArray[np.int64],  # (B, S)
        lengths: NDArray[np.int64],  # (B,)
        cache: list[NDArray[np.float32]],
        wanted: NDArray[np.int64] | None = None,  # (R,)
    ) -> NDArray[np.int64]:
        """One call of the graph; the cache is updated in place.

        Returns the next token after each `wanted` place of the flattened batch, (R,); by default after each row, (B,).
        """
        rows, width = ids.shape
        if wanted is None:
            wanted = np.arange(rows) * width + (lengths - 1 if width > 1 else 0)
        binding = self._session.io_binding()
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": ids,
            "position_ids": positions,
            "last_index": wanted,
            "seqlens_k": (lengths - 1).astype(np.int32),
            "total_sequence_length": np.array(lengths.max(), np.int32),
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for past, present, part in zip(self._past, self._present, cache, strict=True):
            binding.bind_cpu_input(past, part)
            binding.bind_output(present, "cpu", 0, np.float32, part.shape, part.ctypes.data)
        binding.bind_output("next_ids")
        self._session.run_with_iobinding(binding)
        new: NDArray[np.int64] = binding.get_outputs()[-1].numpy()
        return new


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


def _load_session(model_dir: Path, threads: int, precision: Bits) -> Any:
    weights = model_dir / "model.safetensors"
    small = weights.is_file() and weights.stat().st_size < SMALL_MODEL_BYTES
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or (1 if small else max(1, int(usable_cores())))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # waiting threads sleep: the cores are shared with HTTP threads and, in a swap, with another version
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = model_dir / (GRAPH if precision == "fp32" else GRAPH_INT8)
    try:
        if graph.is_file() or precision == "int8":
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        # a plain Hugging Face directory, perhaps read-only: the graph is built in memory
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model_dir))
        return ort.InferenceSession(build_graph(model_dir), options, providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as exc:
        raise ModelError(f"{graph}: ONNX Runtime cannot load it: {str(exc).splitlines()[0]}") from exc
