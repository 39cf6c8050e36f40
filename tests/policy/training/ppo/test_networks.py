"""The parts of the networks that are written out for speed compute what the libraries compute."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from torch import nn

from policy.training.ppo.networks import AsymmetricPolicy, LastState, convolved
from policy.training.ppo.train import PRESETS, build
from policy.training.simulator.dynamics import Rules
from policy.training.simulator.environment import LLMVecEnv
from policy.training.simulator.pool import training_pool


@pytest.mark.parametrize("steps", [1, 7])
def test_the_last_state_and_its_gradients_are_those_of_nn_gru(steps: int) -> None:
    torch.manual_seed(0)
    gru = nn.GRU(5, 8, batch_first=True)
    x, weight = torch.randn(33, steps, 5), torch.randn(33, 8)
    found = []
    for last in (gru(x)[1][0], LastState.apply(x, *gru.parameters())):
        gru.zero_grad()
        (last * weight).sum().backward()
        found.append([last.detach(), *(p.grad.clone() for p in gru.parameters())])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "stride"), [(7, 3), (9, 3), (6, 2)])
def test_the_convolution_and_its_gradients_are_those_of_nn_conv1d(steps: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(2, 4, 3, stride=stride)
    x = torch.randn(33, 2, steps)
    found = []
    for out in (conv(x).flatten(1), convolved(conv, x)):
        conv.zero_grad()
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in conv.parameters() if p.grad is not None)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_actions_are_drawn_as_the_library_draws_them() -> None:
    model, seen, masks = _lived()
    for given in (masks.numpy(), None):
        for likeliest in (False, True):
            found = []
            for forward in (model.policy.forward, partial(MaskableMultiInputActorCriticPolicy.forward, model.policy)):
                torch.manual_seed(1)
                found.append(forward(seen, likeliest, given))
            (ours, *_), (theirs, *_) = found
            assert torch.equal(ours, theirs)
            for one, other in zip(*found, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert len(ours.unique()) > 1


def _lived() -> tuple[Any, dict[str, torch.Tensor], torch.Tensor]:
    """An untrained model, and what 64 services show it after a few steps, with the possible actions."""
    env = LLMVecEnv(training_pool(11, seed=1), 64, Rules(), 0, hidden=True)
    model: Any = build(PRESETS["ppo"], env)
    assert isinstance(model.policy, AsymmetricPolicy)
    observed: Any = env.reset()
    rng = np.random.default_rng(0)
    for _ in range(3):
        observed, *_ = env.step(rng.integers(0, 3, 64))
    seen = {name: torch.as_tensor(values) for name, values in observed.items()}
    masks = torch.as_tensor(env.action_masks())
    assert not masks.all()
    return model, seen, masks


def test_actions_are_judged_as_the_library_judges_them() -> None:
    model, seen, masks = _lived()
    rng = np.random.default_rng(0)
    actions = torch.where(masks.all(dim=1), torch.as_tensor(rng.integers(0, 3, 64)), 0)
    for given in (masks, None):
        ours = model.policy.evaluate_actions(seen, actions, given)
        theirs = MaskableMultiInputActorCriticPolicy.evaluate_actions(model.policy, seen, actions, given)
        slopes = []
        for judged in (ours, theirs):
            model.policy.zero_grad()
            sum(part.sum() for part in judged).backward()
            slopes.append([p.grad.clone() for p in model.policy.parameters()])
        for one, other in zip((*ours, *slopes[0]), (*theirs, *slopes[1]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
