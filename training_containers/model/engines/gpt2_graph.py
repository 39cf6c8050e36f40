"""ONNX export of GPT-2: a model directory as a graph for greedy decoding, fp32, key-value cache, argmax inside.

The graph is written node by node instead of traced, so it needs neither torch nor transformers and takes
milliseconds. Its weights are *references into* `model.safetensors` (ONNX external data), so an artifact holds every
weight once, the tied embedding included; weights that are not fp32 are converted and kept inside `model.onnx`.

| input | shape | meaning |
|---|---|---|
| input_ids | (B, S) | prompt tokens, right-padded with anything; then one token per row |
| position_ids | (B, S) | place of each token in its own row |
| last_index | (R,) | tokens of the flattened batch whose successors are wanted: each row's last real one, or more |
| seqlens_k | (B,) int32 | cached length of each row after this call, minus one |
| total_sequence_length | () int32 | S for a prompt, else the longest cached length after this call |
| past_key_i, past_value_i | (B, H, T, D / H) | cache; bind the outputs to the same memory |

| output | shape | meaning |
|---|---|---|
| next_ids | (R,) | most probable next token after each of last_index |
| present_key_i, present_value_i | (B, H, T, D / H) | the cache with this call's tokens added |
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError

WEIGHTS: Final = "model.safetensors"
GRAPH: Final = "model.onnx"
_OPSET: Final = 17
MICROSOFT: Final = "com.microsoft"
_INLINE_LIMIT_BYTES: Final = 2**31 - 2**20  # protobuf's limit, less the graph itself


class Gpt2Config(msgspec.Struct, frozen=True):
    """The fields of config.json that shape the graph; the others do not matter at inference."""

    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_positions: int
    eos_token_id: int | list[int] = 50256
    model_type: str = "gpt2"
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer."""
        return frozenset([self.eos_token_id] if isinstance(self.eos_token_id, int) else self.eos_token_id)


class Tensor(NamedTuple):
    """Where one weight is in the safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int  # from the start of the file
    length: int


def read_config(model_dir: Path) -> Gpt2Config:
    """config.json of a GPT-2 model.

    Raises:
        ModelError: missing, unreadable, or not a GPT-2 this graph can express.
    """
    path = model_dir / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Gpt2Config)
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read: {exc.strerror}") from exc
    except msgspec.MsgspecError as exc:
        raise ModelError(f"{path}: not a GPT-2 configuration: {exc}") from exc
    if config.model_type != "gpt2" or config.activation_function != "gelu_new" or config.add_cross_attention:
        raise ModelError(f"{path}: only decoder-only gpt2 models with gelu_new are served")
    if config.n_embd % config.n_head:
        raise ModelError(f"{path}: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}")
    return config


def export_onnx(model_dir: Path) -> Path:
    """Write `model_dir/model.onnx`, which reads its weights from the `model.safetensors` beside it.

    Raises:
        ModelError: the directory is not a complete GPT-2 model, or cannot be written.
    """
    target = model_dir / GRAPH
    scratch = model_dir / f".{GRAPH}.partial"
    try:
        scratch.write_bytes(build_graph(model_dir))
        scratch.replace(target)
    except OSError as exc:
        raise ModelError(f"{target}: cannot be written: {exc.strerror}") from exc
    return target


def build_graph(model_dir: Path) -> bytes:
    """The serialized ONNX model of `model_dir`; its external data is `model.safetensors` in the same folder."""
    return Builder(read_config(model_dir), model_dir / WEIGHTS).build()


def read_header(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file: 8 bytes of header length, a JSON header, then the data."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (header_length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(header_length))
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), 8 + header_length + begin, end - begin)
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (struct.error, ValueError, KeyError, TypeError, MemoryError, OverflowError) as exc:
        raise ModelError(f"{path}: not a safetensors file") from exc
    if any(t.offset + t.length > size for t in tensors.values()):
        raise ModelError(f"{path}: cut short at {size} bytes")
    return tensors


class Builder:
    """Collects nodes and weights; one method per part of the network."""

    def __init__(self, config: Gpt2Config, weights: Path) -> None:
        import onnx  # a heavy import that serving an exported artifact does not need

        self.onnx = onnx
        self.config = config
        self.weights = weights
        self.tensors = read_header(weights)
        # save_pretrained writes "transformer.wte.weight", the checkpoints on the hub have "wte.weight"
        self.prefix = "transformer." if "transformer.wte.weight" in self.tensors else ""
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.inline_bytes = 0

    # --- weights

    def weight(self, name: str, *shape: int) -> str:
        """The initializer of the model's tensor `name`, checked against the shape the configuration implies."""
        name, tensor = self.find(name, shape)
        if name in self.initializers:
            return name
        kind = self.onnx.TensorProto.FLOAT
        if tensor.dtype == "F32":
            proto = self.outside(name, kind, tensor)
        else:
            proto = self.onnx.TensorProto(name=name, data_type=kind, dims=shape)
            proto.raw_data = self.as_float32(name, tensor).tobytes()
            self.inline_bytes += len(proto.raw_data)
            if self.inline_bytes > _INLINE_LIMIT_BYTES:
                raise ModelError(f"{self.weights}: too large to convert; save it as fp32")
        self.initializers[name] = proto
        return name

    def find(self, name: str, shape: tuple[int, ...]) -> tuple[str, Tensor]:
        """The tensor under its full name, checked against the shape the configuration implies."""
        name = name if name in self.tensors else self.prefix + name
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.weights}: tensor {name} is missing")
        if tensor.shape != shape:
            raise ModelError(f"{self.weights}: {name} has shape {tensor.shape}, config.json implies {shape}")
        return name, tensor

    def outside(self, name: str, kind: int, tensor: Tensor, file: str = WEIGHTS) -> Any:
        """An initializer whose data stays in a safetensors file beside the graph."""
        proto = self.onnx.TensorProto(name=name, data_type=kind, dims=tensor.shape)
        proto.data_location = self.onnx.TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", tensor.offset), ("length", tensor.length)):
            proto.external_data.add(key=key, value=str(value))
        return proto

    def as_float32(self, name: str, tensor: Tensor) -> NDArray[np.float32]:
        """The tensor's values, flat."""
        with self.weights.open("rb") as file:
            file.seek(tensor.offset)
            raw = file.read(tensor.length)
        if tensor.dtype == "F32":
            return np.frombuffer(raw, np.float32)
        if tensor.dtype == "F16":
            return np.frombuffer(raw, np.float16).astype(np.float32)
        if tensor.dtype == "BF16":  # the upper half of a float32
            return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        raise ModelError(f"{self.weights}: {name} is {tensor.dtype}; F32, F16 and BF16 are served")

    # --- nodes

    def node(self, op: str, inputs: list[str], output: str, *more: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; returns its first output's name."""
        self.nodes.append(
            self.onnx.helper.make_node(op, inputs, [output, *more], name=output, domain=domain, **attributes)
        )
        return output

    def skip_norm(self, norm: str, residual: str, branch: str, branch_bias: str) -> tuple[str, str]:
        """(norm(residual + branch + bias), residual + branch + bias).

        Three nodes: ONNX Runtime's fused SkipLayerNormalization is slower on CPU (a whole prompt step by 5 to 10 %).
        """
        d = self.config.n_embd
        biased = self.node("Add", [branch, self.weight(branch_bias, d)], f"{norm}.biased")
        total = self.node("Add", [residual, biased], f"{norm}.in")
        return self.norm(norm, total), total

    def norm(self, norm: str, x: str) -> str:
        """Layer normalisation of each token."""
        inputs = [x, self.weight(f"{norm}.weight", self.config.n_embd), self.weight(f"{norm}.bias", self.config.n_embd)]
        epsilon = self.config.layer_norm_epsilon
        return self.node("LayerNormalization", inputs, f"{norm}.out", axis=-1, epsilon=epsilon)

    def linear(self, x: str, name: str, rows: int, columns: int, output: str) -> str:
        """x @ weight, without the bias. (M, rows) -> (M, columns)"""
        return self.node("MatMul", [x, self.weight(name, rows, columns)], output)

    def logits(self, x: str) -> str:
        """x @ head.T: how probable each token is after each row of x. (R, D) -> (R, V)"""
        head = self.weight(self.head(), self.config.vocab_size, self.config.n_embd)
        return self.node("Gemm", [x, head], "logits", transB=1)

    def head(self) -> str:
        """The name of the output layer's weights, (V, D): the embedding's, unless the model has its own."""
        return "lm_head.weight" if "lm_head.weight" in self.tensors else "wte.weight"

    def attention(self, layer: int, x: str) -> str:
        """Causal self-attention with a cache per row, without the output projection. (M, D) -> (M, D)"""
        c, d, at = self.config, self.config.n_embd, f"h.{layer}.attn"
        product = self.linear(x, f"{at}.c_attn.weight", d, 3 * d, f"{at}.qkv_product")
        flat = self.node("Add", [product, self.weight(f"{at}.c_attn.bias", 3 * d)], f"{at}.qkv_flat")
        qkv = self.node("Reshape", [flat, "batch_shape"], f"{at}.qkv")
        scale = 1 / math.sqrt(d // c.n_head) if c.scale_attn_weights else 1.0
        if c.scale_attn_by_inverse_layer_idx:
            scale /= layer + 1
        cache = [f"past_key_{layer}", f"past_value_{layer}"]
        out = self.node(
            "GroupQueryAttention",
            [qkv, "", "", *cache, "seqlens_k", "total_sequence_length"],
            f"{at}.out",
            f"present_key_{layer}",
            f"present_value_{layer}",
            domain=MICROSOFT,
            num_heads=c.n_head,
            kv_num_heads=c.n_head,
            scale=scale,
        )
        return self.node("Reshape", [out, "flat_shape"], f"{at}.out_flat")

    def build(self) -> bytes:
        """The whole network, serialized."""
        self.add_nodes()
        return self.serialized()

    def add_nodes(self) -> None:
        """The whole network. Between the attentions tokens are one axis: M = B * S."""
        c, d = self.config, self.config.n_embd
        for name, value in (("flat_shape", [-1, d]), ("minus_one", [-1])):
            self.initializers[name] = self.onnx.numpy_helper.from_array(np.array(value), name)
        given = self.node("Shape", ["input_ids"], "given_shape")
        self.node("Concat", [given, "minus_one"], "batch_shape", axis=0)
        embedding = self.weight("wte.weight", c.vocab_size, d)
        positions = self.weight("wpe.weight", c.n_positions, d)
        tokens = self.node("Gather", [embedding, "input_ids"], "tokens")
        places = self.node("Gather", [positions, "position_ids"], "places")
        embedded = self.node("Add", [tokens, places], "embedded")
        residual = self.node("Reshape", [embedded, "flat_shape"], "embedded_flat")
        x = self.norm("h.0.ln_1", residual)
        for layer in range(c.n_layer):
            at = f"h.{layer}"
            x = self.attention(layer, x)
            if layer == c.n_layer - 1:
                # only these tokens' outputs are used from here on
                x = self.node("Gather", [x, "last_index"], f"{at}.attn.out_last", axis=0)
                residual = self.node("Gather", [residual, "last_index"], f"{at}.residual_last", axis=0)
            x = self.linear(x, f"{at}.attn.c_proj.weight", d, d, f"{at}.attn.projected")
            x, residual = self.skip_norm(f"{at}.ln_2", residual, x, f"{at}.attn.c_proj.bias")
            inner = self.tensors.get(f"{self.prefix}{at}.mlp.c_fc.bias", Tensor("", (4 * d,), 0, 0)).shape[0]
            x = self.linear(x, f"{at}.mlp.c_fc.weight", d, inner, f"{at}.mlp.up")
            x = self.node("FastGelu", [x, self.weight(f"{at}.mlp.c_fc.bias", inner)], f"{at}.mlp.act", domain=MICROSOFT)
            x = self.linear(x, f"{at}.mlp.c_proj.weight", inner, d, f"{at}.mlp.down")
            norm = f"h.{layer + 1}.ln_1" if layer < c.n_layer - 1 else "ln_f"
            x, residual = self.skip_norm(norm, residual, x, f"{at}.mlp.c_proj.bias")
        self.node("ArgMax", [self.logits(x)], "next_ids", axis=1, keepdims=0)

    def serialized(self) -> bytes:
        """The nodes and weights so far as an ONNX model."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, "gpt2-greedy", self._inputs(), self._outputs(), initializer=list(self.initializers.values())
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="opportune")
        serialized: bytes = model.SerializeToString()
        return serialized

    def _inputs(self) -> list[Any]:
        kind, value = self.onnx.TensorProto, self.onnx.helper.make_tensor_value_info
        return [
            value("input_ids", kind.INT64, ["B", "S"]),
            value("position_ids", kind.INT64, ["B", "S"]),
            value("last_index", kind.INT64, ["R"]),
            value("seqlens_k", kind.INT32, ["B"]),
            value("total_sequence_length", kind.INT32, []),
            *(value(name, kind.FLOAT, self._cache_shape()) for name in cache_names("past", self.config.n_layer)),
        ]

    def _outputs(self) -> list[Any]:
        kind, value = self.onnx.TensorProto, self.onnx.helper.make_tensor_value_info
        return [
            value("next_ids", kind.INT64, ["R"]),
            *(value(name, kind.FLOAT, self._cache_shape()) for name in cache_names("present", self.config.n_layer)),
        ]

    def _cache_shape(self) -> list[str | int]:
        return ["B", self.config.n_head, "T", self.config.n_embd // self.config.n_head]


def cache_names(which: str, layers: int) -> list[str]:
    """The names of the cache tensors: which is "past" or "present"."""
    return [f"{which}_{part}_{layer}" for layer in range(layers) for part in ("key", "value")]
