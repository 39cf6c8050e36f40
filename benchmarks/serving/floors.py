"""What this machine can do at best: memory bandwidth, fp32 and int8 matrix products, each by the fastest code here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from training_containers.model.engines.gpt2_graph import Gpt2Config

_SIDE = 1536


class Floors(NamedTuple):
    """Measured rates, with the given number of threads."""

    bytes_per_s: float
    fp32_per_s: float  # multiplications and additions
    int8_per_s: float

    def batch_s(self, config: Gpt2Config, precision: str, rows: int, prompt: int, tokens: int) -> float:
        """Least seconds for `rows` answers computed together: every step reads the weights and does its products.

        Attention, norms and activation functions are left out, so it cannot be reached.
        """
        per_token, head = 12 * config.n_layer * config.n_embd**2, config.vocab_size * config.n_embd
        size, rate = (1, self.int8_per_s) if precision == "int8" else (4, self.fp32_per_s)
        reading = (per_token + head) * size / self.bytes_per_s
        first = 2 * rows * (prompt * per_token + head) / rate
        later = 2 * rows * (per_token + head) / rate
        return max(reading, first) + (tokens - 1) * max(reading, later)


def measure_floors(threads: int) -> Floors:
    """Best of several runs each."""
    import torch

    torch.set_num_threads(threads)
    big, square = torch.ones(100_000_000), torch.randn(_SIDE, _SIDE)
    integer = _integer_product(threads)
    products = 2 * _SIDE**3
    return Floors(
        bytes_per_s=4 * big.numel() / _best(lambda: big.sum()),
        fp32_per_s=products / _best(lambda: square @ square),
        int8_per_s=products / _best(integer),
    )


def _integer_product(threads: int) -> Callable[[], Any]:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.integers(-127, 127, (_SIDE, _SIDE)).astype(np.int8), "w")
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["M", _SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, ["M", _SIDE])
    graph = helper.make_graph([node], "peak", [x], [y], initializer=[weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"x": rng.integers(0, 255, (_SIDE, _SIDE)).astype(np.uint8)}
    return lambda: session.run(None, given)


def _best(action: Callable[[], Any]) -> float:
    """Seconds of the fastest of eight runs."""
    action()
    times = []
    for _ in range(8):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)
