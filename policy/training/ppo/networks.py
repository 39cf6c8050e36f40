"""The two policy networks in torch: the source paper's perceptron on six numbers, and the multi-stream network.

Both begin with the scaler, so that the exported graph takes plain values in plain units. A critic that is thrown away
after training may also see `hidden`, what the environment knows and no policy can.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from policy.history import Floats
from policy.observation.multistream import BLOCKS, DENSE, PERFORMANCE, RESOURCES, WIDTH
from policy.observation.paper import OBSERVATION

#: scaled values beyond this many standard deviations say no more than this
CLIP: Final = 6.0
#: columns of the paper's observation that span magnitudes
PAPER_LOGS: Final = tuple(f.name in ("request_rate", "latency") for f in OBSERVATION)
#: stream of the multi-stream network -> its columns of the observation
STREAMS: Final = {
    "performance": slice(0, BLOCKS * PERFORMANCE),
    "resources": slice(BLOCKS * PERFORMANCE, BLOCKS * (PERFORMANCE + RESOURCES)),
    "deployment": slice(BLOCKS * (PERFORMANCE + RESOURCES), WIDTH),
}
#: logit of an action that is not possible
IMPOSSIBLE: Final = -1e8
#: eps is the library's own choice, which it makes only where no options are given
ADAM: Final = {"eps": 1e-5, "fused": True}
#: smallest value whose logarithm is taken
TINY: Final = 1e-4


class Scaler(nn.Module):
    """(log of) x -> (x - mean) / sd, clipped."""

    mean: torch.Tensor
    scale: torch.Tensor
    logs: torch.Tensor

    def __init__(self, width: int, logs: tuple[bool, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("logs", torch.tensor(logs or (False,) * width))
        self.any_logs = any(logs)

    def fit(self, observed: Floats) -> None:
        """Take mean and sd from observations (N, width)."""
        values = np.where(self.logs.numpy(), np.log(np.maximum(observed, TINY)), observed)
        self.mean.copy_(torch.as_tensor(values.mean(axis=0), dtype=torch.float32))
        self.scale.copy_(torch.as_tensor(1.0 / np.maximum(values.std(axis=0), 1e-3), dtype=torch.float32))

    def forward(self, x: torch.Tensor, columns: slice = slice(None)) -> torch.Tensor:
        """(N, width) -> (N, width), or those columns of it alone."""
        if self.any_logs:
            x = torch.where(self.logs, torch.log(torch.clamp(x, min=TINY)), x)
        return (x[:, columns] - self.mean[columns]).mul_(self.scale[columns]).clamp_(-CLIP, CLIP)


class PaperExtractor(BaseFeaturesExtractor):
    """The six numbers, scaled. The layers are stable-baselines3's own."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, len(OBSERVATION))
        self.scaler = Scaler(len(OBSERVATION), PAPER_LOGS)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(N, 6) -> (N, 6)."""
        scaled: torch.Tensor = self.scaler(observations)
        return scaled


class LastState(torch.autograd.Function):
    """The last hidden state of a GRU over (N, T, D), (N, hidden): what `nn.GRU` computes, faster on a CPU.

    Step by step, `nn.GRU` is dozens of small operations, forth and back. Here the batch is the last axis, so that gates
    are contiguous, and one product a step gives them all: rows reset, update, new of the input, new of the state;
    columns input, 1, state.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """`parameters` in the order of `nn.GRU.parameters()`: weights of input and state, biases of input and state."""
        w_input, w_state, b_input, b_state = parameters
        (count, steps, width), hidden = x.shape, w_state.shape[1]
        both = 2 * hidden  # the gates in which input and state are added
        weight = x.new_zeros(4 * hidden, width + 1 + hidden)
        weight[: 3 * hidden, :width], weight[: 3 * hidden, width] = w_input, b_input
        weight[:both, width] += b_state[:both]
        weight[3 * hidden :, width] = b_state[both:]
        weight[:both, width + 1 :], weight[3 * hidden :, width + 1 :] = w_state[:both], w_state[both:]
        fed = x.new_empty(steps + 1, width + 1 + hidden, count)
        fed[:steps, :width] = x.permute(1, 2, 0)
        fed[:, width] = 1.0
        state = fed[:, width + 1 :]
        state[0] = 0.0
        gates = x.new_empty(steps, 4 * hidden, count)
        for t in range(steps):
            torch.mm(weight, fed[t], out=gates[t])
            reset, update = gates[t, :both].sigmoid_().split(hidden)
            new = gates[t, both : 3 * hidden].addcmul_(reset, gates[t, 3 * hidden :]).tanh_()
            torch.lerp(new, state[t], update, out=state[t + 1])
        ctx.save_for_backward(weight, fed, gates)
        return state[steps].t()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the parameters; none of x, which is observed."""
        weight, fed, gates = ctx.saved_tensors
        steps, hidden = len(gates), weight.shape[0] // 4
        width, both = weight.shape[1] - hidden - 1, 2 * hidden
        of_state, of_weight, of_gates = grads[0].t(), torch.zeros_like(weight), torch.empty_like(gates[0])
        of_reset, of_update, of_new, of_carried = of_gates.split(hidden)
        for t in reversed(range(steps)):
            reset, update, new, carried = gates[t].split(hidden)
            state = fed[t, width + 1 :]
            kept = of_state * update
            torch.mul(of_state - kept, 1.0 - new * new, out=of_new)
            torch.mul(of_new, reset, out=of_carried)
            torch.mul(of_carried * carried, 1.0 - reset, out=of_reset)
            torch.mul(kept * (state - new), 1.0 - update, out=of_update)
            of_weight.addmm_(of_gates, fed[t].t())
            of_state = torch.addmm(kept, weight[:, width + 1 :].t(), of_gates)
        of_input, of_bias, of_hidden = of_weight.split([width, 1, hidden], dim=1)
        of_bias = of_bias[:, 0]
        return (
            None,
            of_input[: 3 * hidden],
            torch.cat([of_hidden[:both], of_hidden[3 * hidden :]]),
            of_bias[: 3 * hidden],
            torch.cat([of_bias[:both], of_bias[3 * hidden :]]),
        )


def convolved(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """What `conv` makes of (N, channels, T), flattened, (N, filters * positions): by one dense product, several times
    as fast on a CPU where rows are short, most of all backwards.
    """
    (filters, channels, size), (stride,), steps = conv.weight.shape, conv.stride, x.shape[2]
    positions = (steps - size) // stride + 1
    weight = x.new_zeros(filters, positions, channels, steps)
    for k in range(positions):
        weight[:, k, :, k * stride : k * stride + size] = conv.weight
    bias = conv.bias.repeat_interleave(positions)
    return torch.addmm(bias, x.flatten(1), weight.view(filters * positions, -1).t())


class MultiStream(nn.Module):
    """GRU over performance, convolution over resources, dense layers over deployment, fused. (N, WIDTH) -> (N, out)."""

    def __init__(self, recurrent: int = 8, filters: int = 4, dense: int = 96, out: int = 96) -> None:
        super().__init__()
        self.scaler = Scaler(WIDTH)
        self.gru = nn.GRU(PERFORMANCE, recurrent, batch_first=True)
        self.conv = nn.Conv1d(RESOURCES, filters, 3, stride=3)
        self.dense = nn.Linear(len(DENSE), dense)
        self.fuse = nn.Linear(recurrent + filters * ((BLOCKS - 3) // 3 + 1) + dense, out)

    def forward(self, observed: torch.Tensor) -> torch.Tensor:
        """Fused features, (N, out)."""
        x = self.scaler(observed)
        performance = x[:, STREAMS["performance"]].reshape(-1, BLOCKS, PERFORMANCE)
        resources = x[:, STREAMS["resources"]].reshape(-1, RESOURCES, BLOCKS)
        parts = [
            LastState.apply(performance, *self.gru.parameters()),
            convolved(self.conv, resources).relu_(),
            self.dense(x[:, STREAMS["deployment"]]).relu_(),
        ]
        fused: torch.Tensor = self.fuse(torch.cat(parts, dim=1))
        return fused.relu_()


class ActorExtractor(BaseFeaturesExtractor):
    """The multi-stream network on what may be seen."""

    def __init__(self, observation_space: spaces.Dict, out: int = 96) -> None:
        super().__init__(observation_space, out)
        self.streams = MultiStream(out=out)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """(N, WIDTH) -> (N, out)."""
        features: torch.Tensor = self.streams(observations["seen"])
        return features


class CriticExtractor(BaseFeaturesExtractor):
    """The deployment features and what only training knows."""

    def __init__(self, observation_space: spaces.Dict, out: int = 96) -> None:
        super().__init__(observation_space, out)
        hidden = observation_space["hidden"].shape[0]
        self.scaler = Scaler(WIDTH)
        self.fuse = nn.Linear(len(DENSE) + hidden, out)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """(N, WIDTH) and (N, hidden) -> (N, out)."""
        seen = self.scaler(observations["seen"], STREAMS["deployment"])
        return torch.relu(self.fuse(torch.cat([seen, observations["hidden"]], dim=1)))


class AsymmetricPolicy(MaskableMultiInputActorCriticPolicy):
    """An actor that sees what a policy may see, and a critic that sees more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._built_actor = False
        super().__init__(*args, share_features_extractor=False, optimizer_kwargs=ADAM, **kwargs)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """The first one asked for is the actor's, the second the critic's."""
        cls = CriticExtractor if self._built_actor else ActorExtractor
        self._built_actor = True
        return cls(self.observation_space)

    def _judge(self, obs: Any, action_masks: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (N, 1) and log-probabilities (N, 3), as the base class computes them.

        It normalises, masks and normalises again, half a dozen passes over the batch; here the masked logits once.
        """
        pi, vf = self.extract_features(obs)
        logits = self.action_net(self.mlp_extractor.forward_actor(pi))
        if action_masks is not None:
            possible = torch.as_tensor(action_masks).reshape(logits.shape).bool()
            logits = logits.masked_fill(~possible, IMPOSSIBLE)
        return self.value_net(self.mlp_extractor.forward_critic(vf)), torch.log_softmax(logits, dim=1)

    def forward(
        self, obs: Any, deterministic: bool = False, action_masks: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions (N,), drawn or the likeliest, values (N, 1) and log-probabilities of the actions (N,)."""
        values, chances = self._judge(obs, action_masks)
        drawn = chances.argmax(dim=1, keepdim=True) if deterministic else torch.multinomial(chances.exp(), 1)
        return drawn.flatten(), values, chances.gather(1, drawn).flatten()

    def evaluate_actions(
        self, obs: Any, actions: torch.Tensor, action_masks: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values (N, 1), log-probabilities of `actions` (N,) and entropies (N,)."""
        values, chances = self._judge(obs, action_masks)
        chosen = chances.gather(1, actions.reshape(-1, 1)).flatten()
        return values, chosen, -(chances.exp() * chances).sum(dim=1)


def actor(policy: Any, observation: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The actor's logits (N, 3) and features (N, F) for observations (N, D), "paper" or "multistream"."""
    features = policy.features_extractor(x) if observation == "paper" else policy.pi_features_extractor.streams(x)
    return policy.action_net(policy.mlp_extractor.policy_net(features)), features
