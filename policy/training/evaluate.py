"""Score a trained actor on many traces at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats
from policy.training.dynamics import Dynamics, Observation, Rules
from policy.training.export import actor_probabilities
from policy.training.pool import Pool


def ratios(
    pool: Pool, observation: Observation, act: Callable[[Floats], NDArray[np.int64]], seed: int = 0
) -> tuple[Floats, NDArray[np.int64]]:
    """(J / J* of every trace, retrains) of a policy; `act` maps observations (N, D) to actions (N,)."""
    rules = Rules(observation, in_order=True, failing_share=0.0, unseen_share=0.0, load_spread=0.0)
    env = Dynamics(pool, len(pool), rules, seed)
    observed = env.reset()
    spent, retrains = np.zeros(len(pool)), np.zeros(len(pool), dtype=np.int64)
    running = np.ones(len(pool), dtype=bool)
    while running.any():
        action = np.where(env.in_flight() | ~running, 0, act(observed))
        outcome = env.step(action)
        spent += np.where(running, outcome.cost_usd, 0.0)
        retrains += running & (action > 0)
        running &= ~outcome.terminated
        observed = outcome.observation
    return spent / pool.optimum_usd, retrains


def greedy(policy: Any, observation: Observation) -> Callable[[Floats], NDArray[np.int64]]:
    """The most probable action of a torch actor."""
    return lambda observed: np.asarray(np.argmax(actor_probabilities(policy, observation, observed), axis=1))
