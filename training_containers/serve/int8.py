"""The same network in 8 bits: a quarter of the memory traffic, and integer matrix units do the multiplying.

Weights are int8 with one scale per output column; each token's activations are quantised on the fly with a scale and
a zero of their own. Sums are exact integers and no scale is shared between tokens, so an answer cannot depend on its
batch mates. Norms, attention and the residual stream stay fp32. The output layer only nominates: the best eight tokens
by 8-bit logits are compared by fp32 logits, read from the embedding in `model.safetensors`.

`model.int8.onnx` refers to `model.int8.bin`, the quantised weights, and to `model.safetensors` for everything else.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError
from training_containers.serve.export import MICROSOFT, WEIGHTS, Builder, read_config

GRAPH_INT8: Final = "model.int8.onnx"
WEIGHTS_INT8: Final = "model.int8.bin"
_LEVELS: Final = 127.0
_NOMINEES: Final = 8  # tokens whose fp32 logits decide
_ALIGN: Final = 4096


def export_int8(model_dir: Path) -> Path:
    """Write the 8-bit engine's two files beside the weights they were made from; returns the graph's path.

    Raises:
        ModelError: the directory is not a complete GPT-2 model, or cannot be written.
    """
    builder = Int8Builder(read_config(model_dir), model_dir / WEIGHTS)
    graph = builder.build()
    try:
        for name, content in ((WEIGHTS_INT8, builder.quantised.getbuffer()), (GRAPH_INT8, graph)):
            scratch = model_dir / f".{name}.partial"
            scratch.write_bytes(content)
            scratch.replace(model_dir / name)
    except OSError as exc:
        raise ModelError(f"{model_dir}: the 8-bit engine cannot be written: {exc.strerror}") from exc
    return model_dir / GRAPH_INT8


def quantise_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(int8 of the same shape (K, N), scales (N,)): weight is about int8 * scale."""
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(_LEVELS)
    return np.rint(weight / scales).astype(np.int8), scales


class Int8Builder(Builder):
    """The fp32 graph's builder with other matrix multiplications."""

    def __init__(self, config: Any, weights: Path) -> None:
        super().__init__(config, weights)
        self.quantised = io.BytesIO()
        constants = {
            "per_level": np.float32(1 / 255),
            "tiny": np.float32(1e-12),
            "nothing": np.float32(0),
            "one": np.float32(1),
            "last_axis": np.array([-1]),
            "second_axis": np.array([1]),
        }
        for name, value in constants.items():
            self.initializers[name] = self.onnx.numpy_helper.from_array(np.asarray(value), name)

    def linear(self, x: str, name: str, rows: int, columns: int, output: str) -> str:
        """x @ weight with each token and each column quantised by itself. (M, rows) -> (M, columns)"""
        weight = self.quantise(name, rows, columns)
        product, scale, zero = self._integer_product(x, weight, output)
        # levels count from the token's lowest value: take out what its zero contributed to each column
        excess = self.node("Mul", [zero, f"{weight}.sums"], f"{output}.excess")
        return self.node("Mul", [self.node("Sub", [product, excess], f"{output}.centred"), scale], output)

    def greedy(self, x: str, embedding: str) -> None:
        """8-bit logits nominate, fp32 logits decide."""
        c, head = self.config, self.head(embedding)
        weight = self.quantise(head, c.vocab_size, c.n_embd, transposed=True)
        product, _, zero = self._integer_product(x, weight, "logits")
        # a token's own scale is positive and the same for all its logits: left out, it changes no order
        logits = self.node("Sub", [product, self.node("Mul", [zero, f"{weight}.sums"], "logits.excess")], "logits")
        k = min(_NOMINEES, c.vocab_size)
        self.initializers["nominees"] = self.onnx.numpy_helper.from_array(np.array([k]), "nominees")
        self.node("TopK", [logits, "nominees"], "nominee_logits", "nominee_ids", axis=-1)
        rows = self.node("Gather", [head, "nominee_ids"], "nominee_rows", axis=0)  # (R, k, D)
        column = self.node("Unsqueeze", [x, "last_axis"], "hidden_column")  # (R, D, 1)
        exact = self.node("MatMul", [rows, column], "nominee_exact")  # (R, k, 1)
        best = self.node("ArgMax", [exact], "best_nominee", axis=1, keepdims=0)  # (R, 1)
        chosen = self.node("GatherElements", ["nominee_ids", best], "chosen", axis=1)
        self.node("Squeeze", [chosen, "second_axis"], "next_ids")

    def _integer_product(self, x: str, weight: str, output: str) -> tuple[str, str, str]:
        """(levels @ weight in fp32, each token's scale (M, 1), the level that stands for its zero (M, 1)).

        256 levels from each token's lowest to its highest value, zero among them: activations are seldom symmetric,
        and after GELU they nearly are one-sided.
        """
        high = self.node("ReduceMax", [x], f"{output}.highest", axes=[1], keepdims=1)
        low = self.node("ReduceMin", [x], f"{output}.lowest", axes=[1], keepdims=1)
        high = self.node("Max", [high, "tiny"], f"{output}.high")
        low = self.node("Min", [low, "nothing"], f"{output}.low")
        width = self.node("Sub", [high, low], f"{output}.width")
        scale = self.node("Mul", [width, "per_level"], f"{output}.scale")
        place = self.node("Div", [low, scale], f"{output}.place")
        zero = self.node("Round", [self.node("Neg", [place], f"{output}.minus_place")], f"{output}.zero")
        flat_zero = self.node("Squeeze", [zero, "second_axis"], f"{output}.flat_zero")
        level = self.node("Cast", [flat_zero], f"{output}.zero_level", to=self.onnx.TensorProto.UINT8)
        flat_scale = self.node("Squeeze", [scale, "second_axis"], f"{output}.flat_scale")
        levels = self.node("QuantizeLinear", [x, flat_scale, level], f"{output}.levels", axis=0)
        product = self.node(
            "MatMulIntegerToFloat", [levels, weight, "one", f"{weight}.scales"], f"{output}.product", domain=MICROSOFT
        )
        return product, scale, zero

    def quantise(self, name: str, rows: int, columns: int, transposed: bool = False) -> str:
        """The int8 initializer of the model's tensor `name`, (rows, columns) or turned; its scales go beside it."""
        full = self.weight_array(name, rows, columns)
        levels, scales = quantise_columns(full.T if transposed else full)
        name = f"{name}.int8"
        self._outside(name, self.onnx.TensorProto.INT8, np.ascontiguousarray(levels))
        self._outside(f"{name}.scales", self.onnx.TensorProto.FLOAT, scales)
        sums = levels.sum(axis=0, dtype=np.int64).astype(np.float32) * scales
        self._outside(f"{name}.sums", self.onnx.TensorProto.FLOAT, sums)
        return name

    def _outside(self, name: str, kind: int, array: NDArray[Any]) -> None:
        """An initializer whose data is in the file of quantised weights."""
        self.quantised.write(b"\0" * (-self.quantised.tell() % _ALIGN))
        offset = self.quantised.tell()
        self.quantised.write(array.tobytes())
        self.initializers[name] = self.outside(name, kind, array.shape, WEIGHTS_INT8, offset, array.nbytes)
