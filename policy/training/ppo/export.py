"""ONNX export of a trained actor, one file: scaler, network and softmax in the graph, origin in the metadata.

The graph is written node by node: it is small, it has no side-car file, and it says what is in it.
"""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from policy.observation.multistream import BLOCKS, DENSE, PERFORMANCE, RESOURCES
from policy.observation.paper import Feature
from policy.policies import METADATA_KEY
from policy.training.ppo.networks import CLIP, TINY, MultiStream, Scaler, actor
from shared.contracts import Action

OPSET: Final = 18
_PACKAGES: Final = ("opportune", "stable-baselines3", "sb3-contrib", "torch", "onnx", "numpy", "gymnasium")


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A named constant."""
        name = f"c{len(self.constants)}"
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array.astype(dtype)), name))
        return name

    def add(self, kind: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> str:
        """A node; the name of its last output."""
        names = [f"x{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[-1]

    def scaler(self, module: Scaler, x: str) -> str:
        """`Scaler.forward`."""
        if bool(module.logs.any()):
            logs = self.add("Log", [self.add("Max", [x, self.constant(TINY)])])
            x = self.add("Where", [self.constant(module.logs, np.bool_), logs, x])
        x = self.add("Mul", [self.add("Sub", [x, self.constant(module.mean)]), self.constant(module.scale)])
        return self.add("Clip", [x, self.constant(-CLIP), self.constant(CLIP)])

    def linear(self, module: nn.Linear, x: str) -> str:
        """x W' + b."""
        return self.add("Gemm", [x, self.constant(module.weight), self.constant(module.bias)], transB=1)

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """x cut along its columns."""
        names = [f"x{len(self.nodes)}_{k}" for k in range(len(sizes))]
        self.nodes.append(helper.make_node("Split", [x, self.constant(sizes, np.int64)], names, axis=1))
        return names

    def reshape(self, x: str, shape: list[int]) -> str:
        """Reshape, the first dimension free."""
        return self.add("Reshape", [x, self.constant(shape, np.int64)])

    def gru(self, module: nn.GRU, x: str) -> str:
        """The last hidden state of a batch-first GRU, (N, hidden)."""
        hidden = module.hidden_size

        def reordered(weight: torch.Tensor) -> torch.Tensor:
            # torch: reset, update, new; ONNX: update, reset, new
            reset, update, new = weight.split(hidden)
            return torch.cat([update, reset, new])

        bias = torch.cat([reordered(module.bias_ih_l0), reordered(module.bias_hh_l0)])[None]
        sequence = self.add("Transpose", [x], perm=[1, 0, 2])
        weights = [self.constant(reordered(w)[None]) for w in (module.weight_ih_l0, module.weight_hh_l0)]
        last = self.add(
            "GRU", [sequence, *weights, self.constant(bias)], outputs=2, hidden_size=hidden, linear_before_reset=1
        )
        return self.reshape(last, [-1, hidden])

    def streams(self, module: MultiStream, x: str) -> str:
        """`MultiStream.forward`."""
        x = self.scaler(module.scaler, x)
        performance, resources, deployment = self.split(x, [BLOCKS * PERFORMANCE, BLOCKS * RESOURCES, len(DENSE)])
        performance = self.reshape(performance, [-1, BLOCKS, PERFORMANCE])
        resources = self.reshape(resources, [-1, RESOURCES, BLOCKS])
        convolved = self.add(
            "Conv", [resources, self.constant(module.conv.weight), self.constant(module.conv.bias)], strides=[3]
        )
        parts = [
            self.gru(module.gru, performance),
            self.add("Flatten", [self.add("Relu", [convolved])], axis=1),
            self.add("Relu", [self.linear(module.dense, deployment)]),
        ]
        return self.add("Relu", [self.linear(module.fuse, self.add("Concat", parts, axis=1))])

    def decided(self, p: str) -> None:
        """The output: `decided` in this module."""
        hold, aws, azure = self.split(p, [1, 1, 1])
        retrain = self.add("Add", [aws, azure])
        on_aws = self.add("Cast", [self.add("GreaterOrEqual", [aws, azure])], to=TensorProto.FLOAT)
        on_azure = self.add("Sub", [self.constant(1.0), on_aws])
        parts = [hold, self.add("Mul", [retrain, on_aws]), self.add("Mul", [retrain, on_azure])]
        self.nodes.append(helper.make_node("Concat", parts, ["probabilities"], axis=1))

    def layers(self, module: nn.Module, x: str) -> str:
        """A sequence of linear layers and activations."""
        for layer in module.children():
            if isinstance(layer, nn.Linear):
                x = self.linear(layer, x)
            elif isinstance(layer, nn.Tanh | nn.ReLU):
                x = self.add(type(layer).__name__.replace("ReLU", "Relu"), [x])
            else:
                raise TypeError(f"cannot export a {type(layer).__name__}")
        return x


def export(policy: Any, observation: str, features: tuple[Feature, ...], origin: dict[str, Any], path: Path) -> None:
    """Write the actor of a stable-baselines3 policy. `origin`: how it was trained (seed, traces, steps, reward)."""
    graph = _Graph()
    if observation == "paper":
        x = graph.scaler(policy.features_extractor.scaler, "observation")
    else:
        x = graph.streams(policy.pi_features_extractor.streams, "observation")
    x = graph.linear(policy.action_net, graph.layers(policy.mlp_extractor.policy_net, x))
    graph.decided(graph.add("Softmax", [x], axis=1))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "opportune-policy",
            [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", len(features)])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(Action)])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="opportune",
    )
    model.ir_version = 9
    document = {
        "observation": observation,
        "features": [{"name": f.name, "unit": f.unit, "low": f.low, "high": f.high} for f in features],
        "actions": [action.name.lower() for action in Action],
        "origin": origin,
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "git_revision": _git_revision(),
    }
    helper.set_model_props(model, {METADATA_KEY: json.dumps(document, sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def decided(probabilities: torch.Tensor) -> torch.Tensor:
    """Whether to retrain and where are two questions: the likelier cloud gets the probability of both, (N, 3)."""
    hold, aws, azure = probabilities.split(1, dim=1)
    on_aws = (aws >= azure).float()
    return torch.cat([hold, (aws + azure) * on_aws, (aws + azure) * (1.0 - on_aws)], dim=1)


def actor_probabilities(policy: Any, observation: str, observed: np.ndarray) -> np.ndarray:
    """The torch actor's probabilities, (N, D) -> (N, 3): what the exported graph must agree with."""
    with torch.no_grad():
        x = torch.as_tensor(observed, dtype=torch.float32)
        return np.asarray(decided(torch.softmax(actor(policy, observation, x)[0], dim=1)).numpy())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    """The commit this was trained from, or "unknown" outside a repository."""
    try:
        run = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip()
