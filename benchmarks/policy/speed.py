"""How fast a decision is, and how fast policies are trained.

    python -m benchmarks.policy.speed [--json FILE]

One thread throughout. The network alone is the median over 5,000 evaluations of one observation; "one more step" is a
decision whose history grew by one step since the last one, "whole history" one that starts from nothing. Environment
steps per second: the environment by itself with 256 services, and inside PPO's training with its updates, for the
recipes of the two shipped policies: the start of it, on 200 traces. What a whole training did, its file says.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from policy.catalogue import SHIPPED
from policy.history import History
from policy.policies import NetworkPolicy
from policy.training.ppo.train import PRESETS, Recipe, build, set_up_torch
from policy.training.simulator.dynamics import Observation, Rules
from policy.training.simulator.environment import LLMVecEnv
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool, training_pool
from policy.training.simulator.replay import replay

SERVICES: Final = 256
STEPS: Final = 64
ROLLOUTS: Final = 4


class _Keeper:
    """Holds always, and keeps what it was shown."""

    name = "keeper"

    def __init__(self) -> None:
        self.shown: list[History] = []

    def reset(self, seed: int) -> None:
        self.shown = []

    def decide(self, history: History) -> int:
        self.shown.append(history)
        return 0


def median_us(call: Callable[[], object], times: int) -> float:
    """Median microseconds of a call."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(taken))


def decision_speed() -> dict[str, float]:
    """Microseconds of the shipped network alone, of one more step, and of a whole history of 200 steps."""
    keeper = _Keeper()
    replay(generate("gradual", 1, steps=240), keeper)
    policy = NetworkPolicy(SHIPPED["ppo"], "ppo")
    observed = policy.observe(keeper.shown[-1])
    network = median_us(lambda: policy.probabilities_of(observed[None]), 5_000)
    policy.reset(0)
    policy.decide(keeper.shown[40])
    grown = iter(keeper.shown[41:])
    one_more = median_us(lambda: policy.decide(next(grown)), 190)

    def whole() -> None:
        policy.reset(0)
        policy.decide(keeper.shown[199])

    return {"network_us": network, "one_more_step_us": one_more, "whole_history_us": median_us(whole, 20)}


def environment_speed(pool: Pool, observation: Observation) -> float:
    """Steps per second of the environment by itself."""
    env = LLMVecEnv(pool, SERVICES, Rules(observation), 0, observation == "multistream")
    env.reset()
    idle = np.zeros(SERVICES, dtype=np.int64)
    begin = time.perf_counter()
    for _ in range(STEPS):
        env.step_async(idle)
        env.step_wait()
    return SERVICES * STEPS / (time.perf_counter() - begin)


def training_speed(pool: Pool, recipe: Recipe) -> float:
    """Environment steps per second inside PPO, updates included."""
    env = LLMVecEnv(pool, recipe.num_envs, Rules(recipe.observation), 0, recipe.observation == "multistream", 20.0)
    model = build(recipe, env)
    rollout = recipe.num_envs * recipe.n_steps
    model.learn(rollout)
    steps = ROLLOUTS * rollout
    begin = time.perf_counter()
    model.learn(steps)
    return steps / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    result = decision_speed()  # before the setting of training, which no function has
    set_up_torch()
    pool = training_pool(200, 0)
    kinds: tuple[tuple[Observation, str], ...] = (("paper", "ppo-paper"), ("multistream", "ppo"))
    for observation, preset in kinds:
        result[f"{observation}_environment_steps_per_s"] = environment_speed(pool, observation)
        result[f"{observation}_training_steps_per_s"] = training_speed(pool, PRESETS[preset])
    print("| what | |\n|---|---|")
    for name, value in result.items():
        print(f"| {name} | {value:,.0f} |")
    if args.json:
        args.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
