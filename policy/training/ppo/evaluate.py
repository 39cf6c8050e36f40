"""Rollouts of a trained actor on many traces at once, and calibration of how ready it is to retrain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from policy.history import Floats
from policy.training.ppo.export import actor_probabilities
from policy.training.simulator.dynamics import Dynamics, Observation, Rules
from policy.training.simulator.pool import Pool

#: what may be added to the retrain logits, tried in this order. Never readier than PPO left it
SHIFTS: Final = (0.0, -0.15, -0.3, -0.45, -0.6)
#: retrains in a family, as a factor of the optimum's, up to which a policy surely does not thrash (half as many again)
CALM: Final = 1.25


def scoring_rules(observation: Observation = "multistream", window: int | None = None) -> Rules:
    """How decisions are scored: every service runs its own trace, no job fails, and former models are re-evaluated.

    With a `window`, the quality is measured as in a live service: the mean of that many steps of the serving model, and
    nobody re-evaluates former ones.
    """
    live_view, steps = (0.0, (1, 1)) if window is None else (1.0, (window, window))
    return Rules(
        observation,
        in_order=True,
        failing_share=0.0,
        live_view_share=live_view,
        measurement_window=steps,
        load_spread=0.0,
    )


def ratios(
    pool: Pool,
    observation: Observation,
    act: Callable[[Floats], NDArray[np.int64]],
    seed: int = 0,
    window: int | None = None,
) -> tuple[Floats, NDArray[np.int64]]:
    """(J / J* of every trace, retrains) under `scoring_rules`; `act` maps observations (N, D) to actions (N,)."""
    return rollout(Dynamics(pool, len(pool), scoring_rules(observation, window), seed), act)


def rollout(env: Dynamics, act: Callable[[Floats], NDArray[np.int64]]) -> tuple[Floats, NDArray[np.int64]]:
    """As `ratios`, in an environment whose services run the traces of its pool in order."""
    pool = env.pool
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


def calibrate(policy: Any, observation: Observation, judges: Mapping[str, Pool], seed: int) -> tuple[float, float]:
    """Shift the retrain logits by as little as ends thrashing in every family of `judges`; (shift, mean J / J*).

    PPO trains a policy that draws its actions; the exported one takes the most probable. Where what was lost comes back
    by itself that is too many retrains, at hardly any cost on average: J / J* does not tell the shifts apart.
    """
    bias = policy.action_net.bias
    original = bias.detach().clone()
    found = (0.0, np.nan)
    with torch.no_grad():
        for shift in SHIFTS:
            bias.copy_(original + torch.tensor([0.0, shift, shift]))
            act = greedy(policy, observation)
            rollouts = [
                (*ratios(pool, observation, act, seed), np.count_nonzero(pool.best_action)) for pool in judges.values()
            ]
            found = shift, float(np.concatenate([ratio for ratio, _, _ in rollouts]).mean())
            if max(retrains.sum() / max(optimum, 1) for _, retrains, optimum in rollouts) <= CALM:
                break
    return found
