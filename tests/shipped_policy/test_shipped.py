"""The shipped network is the torch network that its weights describe, and it was made by one recipe."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from policy.catalogue import SHIPPED
from policy.observation.multistream import FEATURES
from policy.policies import NetworkPolicy
from policy.training.ppo.export import decided
from policy.training.ppo.networks import MultiStream
from policy.training.ppo.train import PRESETS, random_rollout, recipe_in
from policy.training.simulator.dynamics import Dynamics, Rules
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool


def torch_network() -> nn.Module:
    """The shipped file's weights in torch's own layers, in the order in which they were written."""
    weights = [torch.tensor(numpy_helper.to_array(c)) for c in onnx.load(SHIPPED["ppo"]).graph.initializer]
    floats = iter([w for w in weights if w.dtype == torch.float32 and w.numel() > 1])
    streams = MultiStream()

    def from_onnx(gates: torch.Tensor) -> torch.Tensor:
        update, reset, new = gates.split(streams.gru.hidden_size)
        return torch.cat([reset, update, new])

    with torch.no_grad():
        streams.scaler.mean.copy_(next(floats))
        streams.scaler.scale.copy_(next(floats))
        streams.conv.weight.copy_(next(floats))
        streams.conv.bias.copy_(next(floats))
        streams.gru.weight_ih_l0.copy_(from_onnx(next(floats)[0]))
        streams.gru.weight_hh_l0.copy_(from_onnx(next(floats)[0]))
        ours, theirs = next(floats)[0].split(3 * streams.gru.hidden_size)
        streams.gru.bias_ih_l0.copy_(from_onnx(ours))
        streams.gru.bias_hh_l0.copy_(from_onnx(theirs))
        layers: list[nn.Module] = [streams]
        for linear in (streams.dense, streams.fuse):
            linear.weight.copy_(next(floats))
            linear.bias.copy_(next(floats))
        for last in (False, True):
            weight, bias = next(floats), next(floats)
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
            layers += [layer] if last else [layer, nn.ReLU()]
    assert next(floats, None) is None
    return nn.Sequential(*layers, nn.Softmax(dim=1))


def test_the_shipped_file_chooses_as_torch_does_on_ten_thousand_observations() -> None:
    pool = Pool([generate(family, 3) for family in ("sudden", "recurring", "gradual", "stable")])
    observed = random_rollout(Dynamics(pool, 100, Rules("multistream"), seed=2), 99, seed=2).astype(np.float32)
    rng = np.random.default_rng(4)
    observed[::2] += (rng.normal(0.0, 1.0, observed[::2].shape) * observed.std(axis=0)).astype(np.float32)
    assert observed.shape == (10_000, len(FEATURES))
    with torch.no_grad():
        expected = decided(torch_network()(torch.as_tensor(observed))).numpy()
    got = NetworkPolicy(SHIPPED["ppo"], "ppo").probabilities_of(observed.astype(np.float64))
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_array_equal(got.argmax(axis=1), expected.argmax(axis=1))
    assert len(set(got.argmax(axis=1))) == 3


def test_the_shipped_file_says_which_command_made_it() -> None:
    made = NetworkPolicy(SHIPPED["ppo"], "ppo").metadata["origin"]
    recipe = PRESETS["ppo"]
    assert recipe_in(made) == json.loads(json.dumps(asdict(recipe)))
    assert made["agreement"] == {"observations": 10_000, "same_action": 10_000}
