"""Both actions are rolled out from one state, and an actor that holds where that is dearer learns to retrain."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.history import Floats
from policy.observation.multistream import FEATURES
from policy.training.ppo import policy_iteration
from policy.training.ppo.evaluate import greedy
from policy.training.ppo.policy_iteration import CLEAR, ROLLOUTS, goals_of, iterate_policy, roll_out_both, teach
from policy.training.ppo.train import Recipe, build, fit_scalers, pool_of, random_rollout, train
from policy.training.simulator.cost import run_cost
from policy.training.simulator.dynamics import Dynamics, Observation, Rules
from policy.training.simulator.environment import LLMVecEnv
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool, training_pool
from policy.training.simulator.trace import Trace

pytestmark = pytest.mark.slow

NAMES = [feature.name for feature in FEATURES]
TIME, LOST = NAMES.index("time"), NAMES.index("drop_4")


def never(observed: Floats) -> Floats:
    return np.tile([1.0, 0.0, 0.0], (len(observed), 1))


def test_the_difference_is_that_of_two_whole_lives() -> None:
    traces = [generate("sudden", 70 + k) for k in range(6)]
    rules = Rules(failing_share=0.0, load_spread=0.0)
    observed, dearer, met = roll_out_both(never, Pool(traces), rules, seed=5)
    assert observed.shape[0] == dearer.shape[0] == len(traces)
    assert met.shape[1] == observed.shape[1]
    for trace, seen, difference in zip(traces, observed, dearer, strict=True):
        holding = run_cost(trace, [0] * trace.steps).cost_usd
        optimum = Pool([trace]).optimum_usd[0]
        # the one retrain was at some step on the first cloud, which `never` finds no worse than the other
        possible = [
            (run_cost(trace, [int(t == when) for t in range(trace.steps)]).cost_usd - holding) / optimum
            for when in range(trace.steps)
        ]
        assert np.abs(np.array(possible) - difference).min() < 1e-5
        assert np.isfinite(seen).all()


def test_where_the_policy_retrains_the_other_life_is_the_one_that_waits_a_step() -> None:
    traces = [generate("sudden", 70 + k) for k in range(6)]
    rules = Rules(failing_share=0.0, load_spread=0.0)

    def always(observed: Floats) -> Floats:
        return np.tile([0.1, 0.8, 0.1], (len(observed), 1))

    def cost_usd(trace: Trace, waits: int | None) -> float:
        """Of retraining whenever it may, except at the step `waits`."""
        decisions, t = [0] * trace.steps, 0
        while t < trace.steps:
            decisions[t] = int(t != waits)
            t += int(trace.delays[0]) if t != waits else 1
        return run_cost(trace, decisions).cost_usd

    _, dearer, _ = roll_out_both(always, Pool(traces), rules, seed=5)
    for trace, difference in zip(traces, dearer, strict=True):
        optimum = Pool([trace]).optimum_usd[0]
        free = range(0, trace.steps, int(trace.delays[0]))
        possible = [(cost_usd(trace, None) - cost_usd(trace, when)) / optimum for when in free]
        assert np.abs(np.array(possible) - difference).min() < 1e-5


def test_states_are_picked_anywhere_in_a_life_and_most_where_the_policy_wavers() -> None:
    pool = Pool([generate("stable", 70)] * 400)
    when: list[NDArray[np.float32]] = []

    def wavers_late(observed: Floats) -> Floats:
        late = observed[:, TIME] * 256.0 >= 100.0
        return np.where(late[:, None], [[0.6, 0.4, 0.0]], [[1.0, 0.0, 0.0]])

    for act in (never, wavers_late):
        observed, _, _ = roll_out_both(act, pool, Rules(failing_share=0.0), seed=1)
        when.append(observed[:, TIME] * 256.0)
    steps = int(pool.steps[0])
    assert np.mean(when[0]) == pytest.approx(steps / 2, abs=0.06 * steps)
    assert np.mean(when[1] >= 100.0) > np.mean(when[0] >= 100.0) + 0.2


def test_only_a_hold_that_is_clearly_dearer_is_unlearnt() -> None:
    chances = np.array([[0.9, 0.075, 0.025], [0.9, 0.075, 0.025], [0.2, 0.8, 0.0], [0.2, 0.8, 0.0]])
    goal, wrong = goals_of(chances, np.array([-2.0 * CLEAR, -0.5 * CLEAR, -2.0 * CLEAR, 2.0 * CLEAR]))
    assert wrong.tolist() == [True, False, False, False]
    np.testing.assert_allclose(goal[0], [0.05, 0.7125, 0.2375])
    np.testing.assert_allclose(goal[1:], chances[1:])


def test_an_actor_that_only_holds_is_taught_to_retrain_where_holding_is_dearer_and_nowhere_else() -> None:
    recipe = Recipe(observation="multistream", seed=2, num_envs=32, n_steps=16)
    pool = training_pool(30, 599)
    model = build(recipe, LLMVecEnv(pool, 32, Rules(), 2, hidden=True))
    env = Dynamics(pool, 200, Rules(), seed=4)
    fit_scalers(model, env, recipe)
    states = random_rollout(env, 100, seed=4)
    model.policy.action_net.bias.data[0] += 4.0
    act = greedy(model.policy, "multistream")
    assert not act(states).any()
    low = states[:, LOST] > 0.1
    teach(model.policy, "multistream", states.astype(np.float32), np.where(low, -0.1, 0.1), seed=1)
    retrains = act(states) > 0
    assert np.mean(retrains[low]) > 0.95
    assert np.mean(retrains[~low]) < 0.05


@pytest.mark.parametrize("observation", ["paper", "multistream"])
def test_what_the_trees_learnt_is_taught_to_the_actor_and_the_critic_stays(
    observation: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_iteration, "ROLLOUTS", 1)
    monkeypatch.setattr(policy_iteration, "CLEAR", -9.0)  # whatever the trees say, every hold is wrong
    recipe = Recipe(observation=observation, seed=2, num_envs=32, n_steps=16)
    pool = training_pool(30, 599)
    rules = Rules(observation)
    model = build(recipe, LLMVecEnv(pool, 32, rules, 2, hidden=observation == "multistream"))
    policy = model.policy
    fit_scalers(model, Dynamics(pool, 32, rules), recipe)
    policy.action_net.bias.data[0] += 4.0
    critic = [p.clone() for p in policy.value_net.parameters()]
    before = [p.clone() for p in policy.action_net.parameters()]
    assert iterate_policy(policy, [pool], rules, 1, lambda _: None) == 1.0
    assert any(bool((a != b).any()) for a, b in zip(before, policy.action_net.parameters(), strict=True))
    assert all(bool((a == b).all()) for a, b in zip(critic, policy.value_net.parameters(), strict=True))


def test_training_ends_with_it_where_the_recipe_says_so(tmp_path: Path) -> None:
    phases = []
    small = Recipe(observation="multistream", seed=2, steps=512, traces=14, num_envs=32, n_steps=16, iteration_pools=2)
    made = train(small, tmp_path / "p.onnx", lambda phase, done, total: phases.append((phase, done, total)))
    assert [p for p in phases if p[0] == "iteration"] == [
        ("iteration", k + 1, 2 * ROLLOUTS) for k in range(2 * ROLLOUTS)
    ]
    assert 0.0 <= made["corrected_share"] < 1.0
    pools = [pool_of(small, small.seed), *(pool_of(small, small.seed + 500 + k) for k in range(2))]
    assert made["traces_sha256"] == sha256("".join(pool.sha256 for pool in pools).encode()).hexdigest()
