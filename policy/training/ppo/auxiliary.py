"""PPO with an auxiliary head: the actor also predicts what a retrain would gain and holding would lose, steps ahead.

Rewards tell that late and through noise; the environment knows it at once. Between two updates the actor's features are
fitted to it on a share of the rollout, while a divergence holds its actions where they are: the auxiliary phase of
phasic policy gradient (Cobbe et al. 2021). The auxiliary head is thrown away with the critic.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from torch import nn

from policy.training.compat import learning_rate, updates_done
from policy.training.ppo.networks import actor
from policy.training.simulator.dynamics import AUXILIARY

#: share of a rollout that is learnt from, and how many observations at a time
_SHARE: Final = 0.25
_MINIBATCH: Final = 2048


class AuxiliaryPPO(MaskablePPO):
    """MaskablePPO over observations {"seen", "hidden"}, with the auxiliary phase after each update."""

    def _setup_model(self) -> None:
        super()._setup_model()
        actor = (self.policy.pi_features_extractor, self.policy.mlp_extractor.policy_net, self.policy.action_net)
        self._auxiliary_head = nn.Linear(
            self.policy.pi_features_extractor.features_dim, AUXILIARY.stop - AUXILIARY.start
        )
        learnt = [*self._auxiliary_head.parameters(), *(p for part in actor for p in part.parameters())]
        self.lessons = torch.optim.Adam(learnt, lr=1e-3, fused=True)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_auxiliary_head", "lessons"]

    def train(self) -> None:
        """PPO's update, then the auxiliary phase."""
        super().train()
        for group in self.lessons.param_groups:
            group["lr"] = learning_rate(self)
        observed: Any = self.rollout_buffer.observations
        seen, hidden = (observed[k].reshape(-1, observed[k].shape[-1]) for k in ("seen", "hidden"))
        order = np.random.default_rng(updates_done(self)).permutation(len(seen))[: int(_SHARE * len(seen))]
        parts = np.array_split(order, max(1, len(order) // _MINIBATCH))
        samples = [(torch.as_tensor(seen[part]), torch.as_tensor(hidden[part])) for part in parts]
        with torch.no_grad():  # all before the first step, which moves the actions of every part
            chances = [torch.softmax(self.logits(x)[0], dim=1) for x, _ in samples]
        for (x, known), before in zip(samples, chances, strict=True):
            logits, features = self.logits(x)
            moved = nn.functional.cross_entropy(logits, before)  # a divergence, but for a constant
            loss = self.auxiliary_loss(features, known) + moved
            self.lessons.zero_grad()
            loss.backward()
            self.lessons.step()

    def logits(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The actor's logits (N, 3) and features (N, F) for what may be seen, (N, WIDTH)."""
        return actor(self.policy, "multistream", seen)

    def auxiliary_loss(self, features: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Mean squared error of what the auxiliary head predicts from the features, against `Dynamics.hidden`."""
        return nn.functional.mse_loss(self._auxiliary_head(features), hidden[:, AUXILIARY])
