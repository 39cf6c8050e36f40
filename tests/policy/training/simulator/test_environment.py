"""The environment tells the same story as the scorer, alone and in a vector, and as the live path."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policy.history import History
from policy.observation.follow import build
from policy.observation.multistream import observations
from policy.observation.paper import observe
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.dynamics import Dynamics, Rules
from policy.training.simulator.environment import LLMEnv, LLMVecEnv
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool, training_pool
from policy.training.simulator.replay import replay

SURE: dict[str, Any] = {"failing_share": 0.0, "load_spread": 0.0}


@pytest.fixture(scope="module")
def pool() -> Pool:
    return training_pool(14, seed=1)


@pytest.mark.parametrize("observation", ["paper", "multistream"])
def test_gymnasium_accepts_the_environment(pool: Pool, observation: str) -> None:
    check_env(LLMEnv(pool, Rules(observation=observation)), skip_render_check=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("observation", ["paper", "multistream"])
@pytest.mark.parametrize("reward", ["usd", "regret", "paper"])
@pytest.mark.slow
def test_vector_and_single_agree_step_by_step(pool: Pool, observation: str, reward: str) -> None:
    rules = Rules(observation=observation, reward=reward, failing_share=0.5)  # type: ignore[arg-type]
    many = LLMVecEnv(pool, 5, rules, seed=3)
    singles = [LLMEnv(pool, rules, service=k) for k in range(5)]
    together = many.reset()
    alone = [env.reset(seed=3)[0] for env in singles]
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(400):
        np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(many.action_masks(), [env.action_masks() for env in singles])
        actions = rng.choice(3, 5, p=[0.9, 0.05, 0.05])
        together, rewards, done, infos = many.step(actions)
        for k, env in enumerate(singles):
            alone[k], single_reward, terminated, truncated, _ = env.step(actions[k])
            assert single_reward == pytest.approx(rewards[k], rel=1e-5, abs=1e-6)
            assert (terminated or truncated) == done[k]
            if done[k]:
                ended += 1
                np.testing.assert_allclose(infos[k]["terminal_observation"], alone[k], rtol=1e-5, atol=1e-6)
                assert infos[k]["TimeLimit.truncated"] is False
                alone[k] = env.reset()[0]
    assert ended >= 5


def test_a_time_limit_truncates(pool: Pool) -> None:
    env = LLMVecEnv(pool, 3, Rules(observation="paper", max_steps=10), seed=0)
    env.reset()
    for _ in range(10):
        *_, done, infos = env.step(np.zeros(3, dtype=int))
    assert done.all()
    assert all(info["TimeLimit.truncated"] for info in infos)


@pytest.mark.parametrize("family", ["sudden", "recurring", "gradual"])
def test_rewards_add_up_to_the_score(family: str) -> None:
    trace = generate(family, 5)
    pool = Pool([trace])
    best, _ = optimal_plan(trace)
    spent, regret = Dynamics(pool, 1, Rules(reward="usd", **SURE)), Dynamics(pool, 1, Rules(reward="regret", **SURE))
    spent.reset()
    regret.reset()
    rng = np.random.default_rng(1)
    decisions, money, share = [], 0.0, 0.0
    for _ in range(trace.steps):
        action = rng.choice(3, 1, p=[0.8, 0.1, 0.1])
        decisions.append(0 if spent.in_flight()[0] else int(action[0]))
        outcome = spent.step(action)
        money += float(outcome.cost_usd[0])
        share += float(regret.step(action).reward[0])
    cost = run_cost(trace, decisions).cost_usd
    assert money == pytest.approx(cost, rel=1e-5)
    assert share == pytest.approx(-(cost - best) / best, rel=1e-3)


def test_the_optimal_action_costs_nothing_extra() -> None:
    trace = generate("recurring", 9)
    env = Dynamics(Pool([trace]), 1, Rules(reward="regret", **SURE))
    env.reset()
    assert sum(float(env.step(env.best_action()).reward[0]) for _ in range(trace.steps)) == pytest.approx(0.0, abs=1e-3)


class Watcher:
    """Retrains now and then, and keeps what it would have shown a network."""

    name = "watcher"

    def __init__(self, at: tuple[int, ...], reevaluates: bool = True) -> None:
        self.at, self.reevaluates = at, reevaluates
        self.seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def reset(self, seed: int) -> None:
        self.seen = {}

    def decide(self, history: History) -> int:
        shown = history if self.reevaluates else dataclasses.replace(history, former_model_quality=None)
        self.seen[history.t] = (build(shown), observe(shown))
        return int(history.t in self.at)


@pytest.mark.parametrize(
    ("observation", "reevaluates", "window"),
    [("multistream", True, None), ("multistream", False, None), ("multistream", False, 5), ("paper", True, None)],
)
@pytest.mark.slow
def test_environment_and_live_path_build_the_same_observation(
    observation: str, reevaluates: bool, window: int | None
) -> None:
    trace = generate("sudden", 4)
    quiet = type(trace)(**{f: getattr(trace, f) for f in trace.__dataclass_fields__} | {"noise_sd": 0.0})
    watcher = Watcher((20, 60, 61, 100), reevaluates)
    decisions = replay(quiet, watcher, seed=0, window=window)
    steps = (window or 1, window or 1)
    rules = Rules(observation, live_view_share=1.0 - reevaluates, measurement_window=steps, **SURE)  # type: ignore[arg-type]
    env = Dynamics(Pool([quiet]), 1, rules)
    observed = env.reset()
    for t in range(quiet.steps):
        if t in watcher.seen:
            expected = watcher.seen[t][0 if observation == "multistream" else 1]
            np.testing.assert_allclose(observed[0], expected, rtol=1e-4, atol=1e-5)
        else:
            assert env.in_flight()[0]
        observed = env.step(np.array([decisions[t]])).observation


def test_a_live_service_measures_means_of_its_window_as_noisy_as_the_trace_says() -> None:
    """Over traces without drift, so that what is left is noise; a young model's mean is of fewer steps."""
    flat = [generate("stable", k) for k in range(200)]
    flat = [
        dataclasses.replace(t, bleu=np.full_like(t.bleu, 0.5), accuracy=np.full_like(t.accuracy, 0.5)) for t in flat
    ]
    env = Dynamics(
        Pool(flat), 200, Rules(live_view_share=1.0, measurement_window=(9, 9), in_order=True, **SURE), seed=4
    )
    env.reset()
    quality = []
    for _ in range(60):
        quality.append(env.tracker.last[:, 0])
        env.step(np.zeros(200, dtype=np.int64))
    noise = (np.array(quality) - 0.5) / np.array([t.noise_sd for t in flat])
    assert noise[20:].std() == pytest.approx(1.0, rel=0.05)
    assert noise[0].std() == pytest.approx(3.0, rel=0.2)
    # what lies a window apart has nothing in common, neighbours have eight of nine steps
    assert np.mean(noise[20:51:9] * noise[29:60:9]) == pytest.approx(0.0, abs=0.15)
    assert np.mean(noise[20:59] * noise[21:60]) == pytest.approx(8 / 9, abs=0.1)


def test_a_vector_of_services_shows_new_episodes_only_where_one_began() -> None:
    """Observations are computed for the rows that begin; the others' stay what the step left."""
    pool = training_pool(11, seed=2)
    env = LLMVecEnv(pool, 8, Rules(), 5, hidden=True)
    observed: Any = env.reset()
    over = 0
    for _ in range(300):
        observed, _, done, infos = env.step(np.zeros(8, dtype=np.int64))
        for row in np.flatnonzero(done):
            over += 1
            last = infos[row]["terminal_observation"]
            assert not np.array_equal(last["seen"], observed["seen"][row])
            assert env.dynamics.t[row] == 0
        np.testing.assert_allclose(observed["hidden"], env.dynamics.hidden(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(observed["seen"], observations(env.dynamics.tracker), rtol=1e-5, atol=1e-6)
    assert over >= 8


def test_a_retrain_that_somebody_else_starts_happens_and_is_not_judged(pool: Pool) -> None:
    rules = Rules(reward="regret", external_retrain_share=1.0, in_order=True, **SURE)
    env, calm = (Dynamics(pool, len(pool), each, seed=6) for each in (rules, Rules(reward="regret", in_order=True)))
    env.reset(), calm.reset()
    assert not calm.external_retrains.any()
    started = np.zeros(len(pool), dtype=np.int64)
    for _ in range(int(pool.steps.min()) - 1):
        free, wanted = ~env.in_flight(), env.external_retrains[env.rows, env.t]
        by_others = free & (wanted > 0)
        masks = env.masks()
        np.testing.assert_array_equal(masks.argmax(axis=1)[by_others], wanted[by_others])
        assert (masks.sum(axis=1)[by_others] == 1).all()
        assert (masks.sum(axis=1)[free & ~by_others] == 3).all()
        outcome = env.step(np.zeros(len(pool), dtype=np.int64))
        started += by_others
        running = by_others & (pool.delays[env.rows, np.maximum(wanted, 1) - 1] > 1)  # else it is live already
        np.testing.assert_array_equal(env.pending[running], env.t[running] - 1)
        assert (outcome.reward[by_others] == 0.0).all()
        line = pool.line_starts[by_others] + env.t[by_others] - 1
        assert (outcome.cost_usd[by_others] >= pool.job_usd[line, wanted[by_others] - 1]).all()
    assert started.sum() >= len(pool)


def test_services_at_list_prices_pay_the_same_at_every_step_on_clouds_that_take_as_long() -> None:
    families = ("turnover", "sudden")
    usual, some = (training_pool(40, 3, families, wide_share=0.5, listed_share=share) for share in (0.0, 0.6))
    still = [
        bool(np.ptp(some.job_usd[start : start + steps], axis=0).max() < 1e-9)
        for start, steps in zip(some.line_starts, some.steps, strict=True)
    ]
    sudden = np.arange(40) % 2 == 1
    rng = np.random.default_rng(3)
    wide, plain = rng.random(40) < 0.5, rng.random(40) < 0.6
    assert still == list(plain & (wide | ~sudden))
    for k, start in enumerate(some.line_starts):
        np.testing.assert_allclose(some.job_usd[start], usual.job_usd[start], rtol=1e-5)  # a retrain costs what it did
        if still[k]:
            assert some.delays[k, 0] == some.delays[k, 1] == usual.delays[k, 0]
        else:
            np.testing.assert_array_equal(some.job_usd[start : start + 9], usual.job_usd[start : start + 9])
    np.testing.assert_array_equal(some.quality, usual.quality)
