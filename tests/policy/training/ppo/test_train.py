"""Training end to end on a small scale: the exported file is the trained network."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from policy.policies import NetworkPolicy
from policy.training.ppo import evaluate
from policy.training.ppo.evaluate import calibrate, ratios
from policy.training.ppo.export import actor_probabilities
from policy.training.ppo.train import Recipe, train
from policy.training.simulator.cost import run_cost
from policy.training.simulator.dynamics import Dynamics, Rules
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool

SMALL = {"steps": 5120, "rounds": 2, "traces": 14, "num_envs": 32, "n_steps": 16, "cloning_steps": 2048}


def silent(phase: str, done: int, total: int) -> None:
    assert 0 < done <= total
    assert phase in ("cloning", "ppo")


@pytest.mark.slow
@pytest.mark.parametrize("observation", ["paper", "multistream"])
def test_the_exported_file_agrees_with_torch_on_ten_thousand_observations(tmp_path: Path, observation: str) -> None:
    out = tmp_path / "p.onnx"
    recipe = Recipe(observation=observation, seed=3, **SMALL)  # type: ignore[arg-type]
    origin = train(recipe, out, silent)
    assert origin["recipe"]["seed"] == 3
    assert origin["agreement"] == {"observations": 10_000, "same_action": 10_000}
    kind = PPO if observation == "paper" else MaskablePPO
    torch_policy = kind.load(out.with_suffix(".zip"), device="cpu").policy
    exported = NetworkPolicy(out, "p")
    rng = np.random.default_rng(0)
    env = Dynamics(Pool([generate("sudden", 1)]), 1, Rules(observation))  # type: ignore[arg-type]
    usual = env.reset()[0]
    observed = (usual + rng.normal(0.0, 1.0, (10_000, env.width)) * (0.5 + np.abs(usual))).astype(np.float32)
    expected = actor_probabilities(torch_policy, observation, observed)
    got = exported.probabilities_of(observed)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_array_equal(got.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.slow
def test_training_computes_without_denormal_numbers(tmp_path: Path) -> None:
    torch.set_flush_denormal(False)
    assert float(torch.tensor(1e-39) * 1.0) > 0.0
    kept = []
    train(Recipe(**SMALL), tmp_path / "p.onnx", lambda *_: kept.append(float(torch.tensor(1e-39) * 1.0)))  # type: ignore[arg-type]
    assert set(kept) == {0.0}


@pytest.mark.slow
def test_a_seed_repeats_the_training_to_the_last_bit_and_leaves_no_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    weights = []
    for name in ("a", "b"):
        train(Recipe(seed=5, **SMALL), tmp_path / f"{name}.onnx", silent)  # type: ignore[arg-type]
        observed = np.random.default_rng(0).random((50, 6))
        weights.append(NetworkPolicy(tmp_path / f"{name}.onnx", name).probabilities_of(observed))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not list(temporary.glob("SB3-*"))  # a directory of the library's for every round


def test_batched_scores_are_the_scores_of_the_single_runs() -> None:
    traces = [generate(family, 2) for family in ("gradual", "recurring", "stable")]
    pool = Pool(traces)
    clock = iter(range(10_000))

    def act(observed: np.ndarray) -> np.ndarray:
        return np.full(len(observed), int(next(clock) % 40 == 20))

    scored, retrains = ratios(pool, "paper", act)
    for k, trace in enumerate(traces):
        decisions = [int(t % 40 == 20) for t in range(trace.steps)]
        assert scored[k] == pytest.approx(run_cost(trace, decisions).cost_usd / pool.optimum_usd[k], rel=1e-5)
        assert retrains[k] == sum(decisions)


def test_calibration_silences_a_trigger_happy_policy() -> None:
    import torch
    from gymnasium import spaces
    from stable_baselines3.common.policies import ActorCriticPolicy

    from policy.training.ppo.networks import PaperExtractor

    policy = ActorCriticPolicy(
        spaces.Box(-np.inf, np.inf, (6,)),
        spaces.Discrete(3),
        lambda _: 1e-3,
        features_extractor_class=PaperExtractor,
    )
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor([0.0, -0.5, -0.5]))  # retrains with 55 %: always
    found, ratio = calibrate(policy, "paper", {"stable": Pool([generate("stable", 2)])}, seed=0)
    assert found < 0.0 and ratio < 2.0


@pytest.mark.parametrize(("counts", "shift"), [([[0, 2]], 0.0), ([[0, 5], [0, 3], [0, 2]], -0.3), ([[0, 9]] * 5, -0.6)])
def test_calibration_goes_as_far_as_the_family_that_thrashes_most(
    monkeypatch: pytest.MonkeyPatch, counts: list[list[int]], shift: float
) -> None:
    import torch

    class Untrained:
        action_net = torch.nn.Linear(2, 3)

    judges = {family: Pool([generate(family, 2)]) for family in ("stable", "gradual")}
    optimum = np.count_nonzero(judges["gradual"].best_action)
    assert optimum == 2
    rollouts = iter([(np.array([1.1]), np.array([n])) for each in counts for n in each])
    monkeypatch.setattr(evaluate, "ratios", lambda *_: next(rollouts))
    before = Untrained.action_net.bias.detach().clone()
    found, _ = calibrate(Untrained(), "paper", judges, seed=0)
    assert found == shift
    np.testing.assert_allclose((Untrained.action_net.bias - before).detach(), [0.0, shift, shift], atol=1e-6)
