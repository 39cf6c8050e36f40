"""What an actor learns to predict is the truth about the trace, and learning it leaves the actions alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from policy.training.ppo.train import Recipe, behaviour_cloning, build, fit_scalers, random_rollout
from policy.training.simulator.dynamics import AUXILIARY, HIDDEN, Dynamics, Rules
from policy.training.simulator.environment import LLMVecEnv
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool, training_pool


def test_what_is_foretold_is_read_off_the_trace() -> None:
    trace = generate("sudden", 3)
    env = Dynamics(Pool([trace]), 1, Rules("multistream", failing_share=0.0), seed=1)
    env.reset()
    for t in range(trace.steps - 1):
        serving, q, last = int(env.serving[0]), trace.quality, trace.steps - 1
        ahead = [min(t + k, last) for k in (0, 2, 5, 10, 20, 40)]
        gains = [q[t, u] - q[serving, u] for u in ahead]
        changes = [q[serving, u] - q[serving, t] for u in ahead[1:]]
        assert env.hidden().shape == (1, HIDDEN)
        np.testing.assert_allclose(env.hidden()[0, AUXILIARY], 4.0 * np.array([*gains, *changes]), atol=1e-5)
        env.step(np.array([int(t == 30)]))
    assert serving == 30


@pytest.mark.slow
def test_the_actor_learns_to_foretell_and_its_actions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)  # as training does; sums in another order end elsewhere
    recipe = Recipe(observation="multistream", num_envs=256, n_steps=16, cloning_steps=120_000, cloning_minibatches=16)
    rules = Rules("multistream", "regret")
    pool = training_pool(150, seed=3)
    model = build(recipe, LLMVecEnv(pool, 256, rules, 1, hidden=True))
    fit_scalers(model, Dynamics(pool, 64, rules, seed=2), recipe)
    behaviour_cloning(model, recipe, pool, lambda *_: None)
    other = Dynamics(training_pool(40, seed=4), 256, rules, seed=9)
    seen = torch.as_tensor(random_rollout(other, 60, seed=1)[-256:], dtype=torch.float32)
    hidden = torch.as_tensor(other.hidden(), dtype=torch.float32)

    def error() -> float:
        with torch.no_grad():
            return float(model.auxiliary_loss(model.logits(seen)[1], hidden))

    truth = hidden[:, AUXILIARY]
    cloned = error()
    assert cloned < 0.85 * float(((truth - truth.mean(dim=0)) ** 2).mean())

    monkeypatch.setattr(MaskablePPO, "train", lambda _: None)  # the auxiliary phase alone
    model._auxiliary_head.reset_parameters()
    forgotten = error()
    with torch.no_grad():
        before = torch.softmax(model.logits(seen)[0], dim=1)
    model.learn(256 * 16 * 20)
    with torch.no_grad():
        after = torch.softmax(model.logits(seen)[0], dim=1)
    assert error() < 0.95 * forgotten
    assert float((before - after).abs().mean()) < 0.02

    # what holds the actions are those from before the phase, not those of the step before
    moved: list[float] = []
    divergence = torch.nn.functional.cross_entropy

    def watched(logits: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        moved.append(float((torch.softmax(logits.detach(), dim=1) - before).abs().max()))
        return divergence(logits, before)

    monkeypatch.setattr("policy.training.ppo.auxiliary.nn.functional.cross_entropy", watched)
    monkeypatch.setattr("policy.training.ppo.auxiliary._MINIBATCH", 256)
    model.learn(256 * 16)
    assert len(moved) == 4
    assert moved[0] < 1e-6 < min(moved[1:])
