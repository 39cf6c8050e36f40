"""GPT-2 inference engine on ONNX Runtime: greedy decoding with numpy and tokenizers, no torch, no transformers.

Rows of a batch are right-padded; attention takes each row's own length, so an answer does not depend on its batch
mates. In fp32 it is the one Hugging Face greedy decoding gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from shared.errors import ModelError
from training_containers.model.engines.gpt2_graph import GRAPH, build_graph, cache_names
from training_containers.model.engines.protocol import Bits
from training_containers.model.engines.text import TextEngine, threads_for

_COMPACT_BELOW: Final = 0.75  # drop finished rows once fewer than this share is still growing
#: ONNX Runtime's exceptions have no common base but Exception
_ORT_ERRORS: Final = tuple(
    kind
    for kind in vars(ort.capi.onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)


class OnnxEngine(TextEngine):
    """The fp32 engine of one model directory; `graph` names the file it runs."""

    precision: Bits = "fp32"
    graph: ClassVar[str] = GRAPH
    multiple = 1  # rows of a batch stay a multiple of this while it shrinks

    def __init__(self, model_dir: Path, threads: int = 0) -> None:
        """Load `model_dir`; threads 0 chooses: one for a small model, every usable core for a large one.

        Raises:
            ModelError: the directory does not hold a complete GPT-2 model.
        """
        super().__init__(model_dir)
        self._session = _load_session(model_dir, self.graph, threads)
        self._past = cache_names("past", self.config.n_layer)
        self._present = cache_names("present", self.config.n_layer)

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """As `TextEngine.generate_ids`."""
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
            finished = np.flatnonzero(~alive)
            kept = np.concatenate([np.flatnonzero(alive), finished[: -int(alive.sum()) % self.multiple]])
            if len(kept) <= _COMPACT_BELOW * len(growing):
                growing = [growing[row] for row in kept]
                new, lengths = new[kept], lengths[kept]
                cache = [np.ascontiguousarray(part[kept]) for part in cache]
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


def _load_session(model_dir: Path, graph: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads_for(model_dir, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads wait for work by looking, but only inside a call: between two the cores are for HTTP and other versions
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = model_dir / graph
    try:
        if path.is_file() or graph != GRAPH:
            return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        # a plain Hugging Face directory, perhaps read-only: the graph is built in memory
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model_dir))
        return ort.InferenceSession(build_graph(model_dir), options, providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as exc:
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {str(exc).splitlines()[0]}") from exc
