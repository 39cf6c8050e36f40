"""Int8 inference engine: the fp32 engine's graph with its matrices in blocks of bytes, a quarter of the reading.

256 weights share a scale, and so do 256 activations of one token, which ONNX Runtime's MatMulNBits quantises on the
way: nothing of a token's is shared with another's, so an answer does not depend on its batch mates. Its kernels take
two rows at a time and sum up a last odd one in another order, which is enough to round an activation the other way
here and there; so rows come in pairs. Embeddings, norms and biases stay fp32, in `model.safetensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError
from training_containers.model.engines.gpt2_graph import (
    MICROSOFT,
    WEIGHTS,
    Builder,
    Gpt2Config,
    read_config,
    read_header,
)
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.protocol import Bits

INT8_GRAPH: Final = "model.int8.onnx"
INT8_WEIGHTS: Final = "model.int8.safetensors"

#: weights that share a scale: the longest block there is, and the fastest
_BLOCK: Final = 256
_ZERO: Final = 128  # what stands for 0.0 in an unsigned byte
#: activations in 8 bits too, so that integer units multiply
_ACCURACY_LEVEL: Final = 4


def has_int8(model_dir: Path) -> bool:
    """Whether the model brings an 8-bit engine."""
    return (model_dir / INT8_GRAPH).is_file()


def export_int8(model_dir: Path) -> Path:
    """Write the 8-bit weights and the graph that reads them, the graph last; returns the graph.

    Raises:
        ModelError: the directory is not a complete GPT-2 model, or cannot be written.
    """
    from safetensors.numpy import save  # serving does not write

    builder = _Int8Builder(read_config(model_dir), model_dir / WEIGHTS)
    graph, weights = model_dir / INT8_GRAPH, model_dir / INT8_WEIGHTS
    scratch = [path.with_name(f".{path.name}.partial") for path in (weights, graph)]
    try:
        builder.add_nodes()
        scratch[0].write_bytes(save(builder.small))  # not save_file: its errors are not OSErrors
        builder.refer_to(scratch[0])
        scratch[1].write_bytes(builder.serialized())
        scratch[0].replace(weights)
        scratch[1].replace(graph)
    except OSError as exc:
        raise ModelError(f"{graph}: cannot be written: {exc.strerror}") from exc
    finally:
        for path in scratch:
            path.unlink(missing_ok=True)
    return graph


def quantised(weights: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(N, K) weights in blocks along K: bytes (N, blocks, 256), scales (N, blocks); w = scale * (byte - 128)."""
    rows, columns = weights.shape
    # in C order, also what was handed in transposed: files are written as memory is
    blocks = np.pad(np.ascontiguousarray(weights), ((0, 0), (0, -columns % _BLOCK))).reshape(rows, -1, _BLOCK)
    scales = np.abs(blocks).max(axis=2) / 127.0
    steps = np.divide(blocks, scales[..., None], out=np.zeros_like(blocks), where=scales[..., None] > 0)
    return (np.rint(steps) + _ZERO).astype(np.uint8), scales.astype(np.float32)


class _Int8Builder(Builder):
    """As `Builder`; `small` collects what the 8-bit weights file holds."""

    def __init__(self, config: Gpt2Config, weights: Path) -> None:
        super().__init__(config, weights)
        self.small: dict[str, NDArray[Any]] = {}

    def linear(self, x: str, name: str, rows: int, columns: int, output: str) -> str:
        """x @ weight, without the bias. (M, rows) -> (M, columns)"""
        name, tensor = self.find(name, (rows, columns))
        return self._product(x, name, self.as_float32(name, tensor).reshape(rows, columns).T, output)

    def logits(self, x: str) -> str:
        """x @ head.T. (R, D) -> (R, V)"""
        shape = (self.config.vocab_size, self.config.n_embd)
        name, tensor = self.find(self.head(), shape)
        return self._product(x, name, self.as_float32(name, tensor).reshape(shape), "logits")

    def _product(self, x: str, name: str, weights: NDArray[np.float32], output: str) -> str:
        """x @ weights.T. (M, K), (N, K) -> (M, N)"""
        parts = [f"{name}.int8", f"{name}.scales"]
        self.small |= dict(zip(parts, quantised(weights), strict=True))
        n, k = weights.shape
        sizes = {"N": n, "K": k, "bits": 8, "block_size": _BLOCK, "accuracy_level": _ACCURACY_LEVEL}
        return self.node("MatMulNBits", [x, *parts], output, domain=MICROSOFT, **sizes)

    def refer_to(self, file: Path) -> None:
        """Let the graph read `small` from where it was written."""
        kinds = {"U8": self.onnx.TensorProto.UINT8, "F32": self.onnx.TensorProto.FLOAT}
        for name, tensor in read_header(file).items():
            self.initializers[name] = self.outside(name, kinds[tensor.dtype], tensor, INT8_WEIGHTS)


class Int8Engine(OnnxEngine):
    """The 8-bit engine of one model directory, which `export_int8` has seen."""

    precision: Bits = "int8"
    graph: ClassVar[str] = INT8_GRAPH
    multiple = 2

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """As `TextEngine.generate_ids`; an odd row gets a mate that is not looked at."""
        odd = len(rows) % self.multiple
        return super().generate_ids([*rows, *[rows[-1]] * odd], [*limits, *[1] * odd])[: len(rows)]
