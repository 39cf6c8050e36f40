"""The two networks: the source paper's multi-layer perceptron on six numbers, and the multi-stream network.

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

from policy.features import BLOCKS, DENSE, PERFORMANCE, RESOURCES, WIDTH
from policy.history import Floats
from policy.state import OBSERVATION

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width) -> (N, width)."""
        if self.any_logs:
            x = torch.where(self.logs, torch.log(torch.clamp(x, min=TINY)), x)
        return torch.clamp((x - self.mean) * self.scale, -CLIP, CLIP)


class PaperExtractor(BaseFeaturesExtractor):
    """The six numbers, scaled. The layers are stable-baselines3's own."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, len(OBSERVATION))
        self.scaler = Scaler(len(OBSERVATION), PAPER_LOGS)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(N, 6) -> (N, 6)."""
        scaled: torch.Tensor = self.scaler(observations)
        return scaled


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
        _, last = self.gru(performance)
        parts = [
            last[0],
            torch.relu(self.conv(resources)).flatten(1),
            torch.relu(self.dense(x[:, STREAMS["deployment"]])),
        ]
        return torch.relu(self.fuse(torch.cat(parts, dim=1)))


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
        seen = self.scaler(observations["seen"])[:, -len(DENSE) :]
        return torch.relu(self.fuse(torch.cat([seen, observations["hidden"]], dim=1)))


class AsymmetricPolicy(MaskableMultiInputActorCriticPolicy):
    """An actor that sees what a policy may see, and a critic that sees more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._built_actor = False
        super().__init__(*args, share_features_extractor=False, **kwargs)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """The first one asked for is the actor's, the second the critic's."""
        cls = CriticExtractor if self._built_actor else ActorExtractor
        self._built_actor = True
        return cls(self.observation_space)


def actor(policy: Any, observation: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The actor's logits (N, 3) and features (N, F) for observations (N, D), "paper" or "multistream"."""
    features = policy.features_extractor(x) if observation == "paper" else policy.pi_features_extractor.streams(x)
    return policy.action_net(policy.mlp_extractor.policy_net(features)), features
