"""One step of policy iteration after PPO: both actions are rolled out from the same states, wrong holds unlearnt.

A policy that is sure of itself no longer tries anything else, so PPO never finds out where it is surely wrong: in
states that it seldom meets. There it may hold to the end. Here a state is picked from a service's episode, and that
episode is rolled out twice under the same noise, once with a hold there and once with a retrain, the policy deciding
everything else. The difference in cost is learnt from many such states by boosted trees. The actor is taught to retrain
where the trees are clear that holding is dearer, and what it does already everywhere else (rollout policy iteration as
classification: Lagoudakis and Parr 2003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import nn

from policy.history import Floats
from policy.training.ppo.evaluate import rollout
from policy.training.ppo.export import actor_probabilities
from policy.training.ppo.networks import actor
from policy.training.simulator.dynamics import Dynamics, Observation, Rules
from policy.training.simulator.pool import Pool
from policy.training.simulator.trace import Floats32

#: rollouts of each service of a pool, with one state picked in each
ROLLOUTS: Final = 6
#: a difference in cost over optimal cost from which on the trees are clear about the cheaper action
CLEAR: Final = 0.03
#: differences are cut off here: how much dearer hardly matters, and single rollouts are noisy
_CUT: Final = (-1.0, 0.5)
#: weight in the pick of a state in which the policy is sure; one in which it wavers has up to half a point more
_SURE: Final = 0.05
#: share of the states it may act in that are kept to be taught on
_KEPT: Final = 0.03
#: probability of a retrain that is taught where a hold is clearly dearer
_TAUGHT: Final = 0.95
_PASSES: Final = 10
_MINIBATCH: Final = 2048
_LEARNING_RATE: Final = 1e-3

Act = Callable[[Floats], Floats]
"""Observations (N, D) -> probabilities of the actions (N, 3)."""


class _Picking:
    """Rolls a policy out and picks one step of each service's episode to ask about."""

    def __init__(self, env: Dynamics, act: Act, seed: int) -> None:
        self._env, self._act = env, act
        self._rng = np.random.default_rng(seed)
        n = env.count
        self._weight, self._step = np.zeros(n), 0
        self.when = np.full(n, -1)  # -1: it never could act
        self.other = np.zeros(n, dtype=np.int64)  # what the policy would not do there: its likelier cloud, or hold
        self.observed = np.zeros((n, env.width), dtype=np.float32)
        self.kept: list[Floats32] = []

    def __call__(self, observed: Floats) -> NDArray[np.int64]:
        chances, env = self._act(observed), self._env
        likeliest: NDArray[np.int64] = chances.argmax(axis=1)
        free = env.masks().all(axis=1) & (self._step < env.pool.steps[env.trace])
        self._step += 1
        weight = np.where(free, _SURE + np.sqrt(chances[:, 0] * (1.0 - chances[:, 0])), 0.0)
        self._weight += weight
        picked = self._rng.random(env.count) * self._weight < weight  # each step in proportion to its weight
        self.when[picked] = env.t[picked]
        self.other[picked] = np.where(likeliest == 0, 1 + (chances[:, 2] > chances[:, 1]), 0)[picked]
        self.observed[picked] = observed[picked]
        self.kept.append(observed[free & (self._rng.random(env.count) < _KEPT)].astype(np.float32))
        return likeliest


def roll_out_both(act: Act, pool: Pool, rules: Rules, seed: int) -> tuple[Floats32, Floats, Floats32]:
    """One picked state of each trace of a pool.

    Returns the observations (N, D), by how much of the optimal cost a retrain there is dearer than a hold (N,), and
    other states that were met (M, D).
    """
    rules = replace(rules, in_order=True)
    first, again = (Dynamics(pool, len(pool), rules, seed) for _ in range(2))
    picking = _Picking(first, act, seed)
    own, _ = rollout(first, picking)
    # the policy's own choice has been rolled out; now the other one, and the policy again from there on
    other = picking.other
    changed, _ = rollout(again, lambda observed: np.where(again.t == picking.when, other, act(observed).argmax(axis=1)))
    dearer = np.where(other > 0, changed - own, own - changed)
    asked = picking.when >= 0
    return picking.observed[asked], dearer[asked], np.concatenate(picking.kept)


def iterate_policy(
    policy: Any, pools: Sequence[Pool], rules: Rules, seed: int, progress: Callable[[int], None]
) -> float:
    """Teach an actor to retrain where it holds and that is clearly dearer, changed in place.

    `progress` gets the number of finished rollouts, over all pools. Returns the share of the states met that it was
    wrong in.
    """

    def act(observed: Floats) -> Floats:
        return actor_probabilities(policy, rules.observation, observed)

    rollouts = []
    for number, pool in enumerate(pools):
        for again in range(ROLLOUTS):
            rollouts.append(roll_out_both(act, pool, rules, seed + 10_000 + 100 * number + again))
            progress(len(rollouts))
    asked, dearer, met = (np.concatenate(parts) for parts in zip(*rollouts, strict=True))
    return teach(policy, rules.observation, met, difference_model(asked, dearer, seed).predict(met), seed)


def difference_model(asked: Floats32, dearer: Floats, seed: int) -> HistGradientBoostingRegressor:
    """Boosted trees that predict by how much a retrain is dearer than a hold, of observations (N, D)."""
    trees = HistGradientBoostingRegressor(
        max_iter=400,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=100,
        l2_regularization=5.0,
        max_features=0.3,
        random_state=seed,
    )
    return trees.fit(asked, np.clip(dearer, *_CUT))


def goals_of(chances: Floats, dearer: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """What the actor shall do, (N, 3), and where it is wrong now, (N,).

    `chances` (N, 3) is what it does, `dearer` (N,) by how much a retrain is thought dearer than a hold. A retrain that
    it should have left is not unlearnt: where trees find that, they mix worlds in which it just pays with others.
    """
    wrong = (dearer < -CLEAR) & (chances[:, 0] > 0.5)
    where = chances[:, 1:] / np.maximum(chances[:, 1:].sum(axis=1, keepdims=True), 1e-12)
    retrain = np.concatenate([np.full((len(where), 1), 1.0 - _TAUGHT), _TAUGHT * where], axis=1)
    return np.where(wrong[:, None], retrain, chances), wrong


def teach(policy: Any, observation: Observation, states: Floats32, dearer: Floats, seed: int) -> float:
    """Fit the actor to `goals_of` its own probabilities in `states`, (N, D). Returns the share that it was wrong in."""
    x = torch.as_tensor(states)
    with torch.no_grad():
        chances = torch.softmax(actor(policy, observation, x)[0], dim=1)
    goal, wrong = goals_of(chances.numpy().astype(np.float64), dearer)
    goals, weight = torch.as_tensor(goal, dtype=torch.float32), torch.as_tensor(1.0 + 4.0 * wrong)
    optimizer = torch.optim.Adam(policy.parameters(), lr=_LEARNING_RATE)  # a critic gets no gradient, and stays
    rng = np.random.default_rng(seed)
    count = max(1, len(states) // _MINIBATCH)
    for done in range(_PASSES * count):
        if done % count == 0:
            batches = np.array_split(rng.permutation(len(states)), count)
        batch = batches[done % count]
        logits, _ = actor(policy, observation, x[batch])
        loss = nn.functional.cross_entropy(logits, goals[batch], reduction="none")
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1.0 - done / (_PASSES * count))
        optimizer.zero_grad()
        (loss * weight[batch]).mean().backward()
        optimizer.step()
    return float(wrong.mean())
