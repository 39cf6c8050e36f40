"""Train AMUSE's agent: `python -m policy.training.baselines.amuse_training` writes amuse.npz in a few minutes.

PPO over whole episodes of the training traces. Reward of a step: change of the true quality of the serving model
since the step before, less `PENALTY` times the cost ratio for a retrain. Between decisions the discount runs on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from policy.history import Floats, History
from policy.training.baselines.amuse import FEATURES, WEIGHTS, features, retrain_probability
from policy.training.baselines.tuning import ratio_of
from policy.training.simulator.cost import run_cost
from policy.training.simulator.generators import FAMILIES, generate
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace

DISCOUNT: Final = 0.8
SMOOTHING: Final = 0.95  # lambda of the advantage estimate
#: points of accuracy that a retrain of cost ratio 1 is charged; a gain lasts for many steps but is paid once
PENALTY: Final = 0.02
CLIP: Final = 0.2
ENTROPY: Final = 0.005
FIRST_SEED: Final = 800_000
WIDTH: Final = 32


@dataclass
class Recorder:
    """Plays the agent's random policy and keeps what it saw and did."""

    weights: tuple[Floats, ...]
    rng: np.random.Generator
    name: str = "amuse"
    steps: list[int] = field(default_factory=list)
    inputs: list[Floats] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)

    def reset(self, seed: int) -> None:
        """Nothing: one recorder plays one episode."""

    def decide(self, history: History) -> int:
        """Sample an action; hold, unrecorded, while too little was measured."""
        seen = features(history)
        if seen is None:
            return 0
        fire = int(self.rng.random() < retrain_probability(seen, self.weights))
        self.steps.append(history.t)
        self.inputs.append(seen)
        self.actions.append(fire)
        return history.cheapest_action() if fire else 0


def episode(trace: Trace, recorder: Recorder, seed: int) -> tuple[Floats, Floats]:
    """Play one trace; (reward, discount to the next decision) of each recorded decision."""
    decisions = replay(trace, recorder, seed)
    serving = run_cost(trace, decisions).serving
    quality = trace.quality[serving, np.arange(trace.steps)]
    change = np.diff(quality, append=quality[-1])
    paid = np.array([PENALTY * ratio_of(trace) if action else 0.0 for action in decisions])
    rewards, discounts = [], []
    for index, step in enumerate(recorder.steps):
        until = recorder.steps[index + 1] if index + 1 < len(recorder.steps) else trace.steps
        decay = DISCOUNT ** np.arange(until - step)
        rewards.append(float((decay * change[step:until]).sum() - paid[step]))
        discounts.append(DISCOUNT ** (until - step) if until < trace.steps else 0.0)
    return np.array(rewards), np.array(discounts)


def advantages(rewards: Floats, discounts: Floats, values: Floats) -> Floats:
    """Generalised advantage estimates of one episode."""
    result = np.zeros(len(rewards))
    following = 0.0
    for index in range(len(rewards) - 1, -1, -1):
        after = values[index + 1] if index + 1 < len(values) else 0.0
        following = rewards[index] + discounts[index] * after - values[index] + discounts[index] * SMOOTHING * following
        result[index] = following
    return result


def weights_of(actor: nn.Sequential) -> tuple[Floats, ...]:
    """The actor's layers for numpy."""
    layers = [layer for layer in actor if isinstance(layer, nn.Linear)]
    return tuple(
        parameter.detach().numpy().astype(np.float64) for layer in layers for parameter in (layer.weight, layer.bias)
    )


def network() -> nn.Sequential:
    """13 -> 32 -> 32 -> 1."""
    return nn.Sequential(
        nn.Linear(len(FEATURES), WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)
    )


def train(iterations: int, episodes: int, seed: int) -> tuple[Floats, ...]:
    """The trained actor's weights."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    actor, critic = network(), network()
    with torch.no_grad():
        actor[-1].bias.fill_(-3.0)  # begin with few retrains
    optimiser = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=1e-3)
    families = list(FAMILIES)
    for iteration in range(iterations):
        batch: dict[str, list[Any]] = {"inputs": [], "actions": [], "advantages": [], "returns": []}
        for number in range(episodes):
            trace = generate(families[number % len(families)], FIRST_SEED + iteration * episodes + number)
            recorder = Recorder(weights_of(actor), rng)
            rewards, discounts = episode(trace, recorder, seed)
            inputs = np.array(recorder.inputs)
            with torch.no_grad():
                values = critic(torch.tensor(inputs, dtype=torch.float32))[:, 0].numpy().astype(np.float64)
            estimates = advantages(rewards, discounts, values)
            batch["inputs"].append(inputs)
            batch["actions"].append(recorder.actions)
            batch["advantages"].append(estimates)
            batch["returns"].append(estimates + values)
        _update(actor, critic, optimiser, {key: np.concatenate(value) for key, value in batch.items()}, rng)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1.0 - (iteration + 1) / iterations)
        if (iteration + 1) % 10 == 0:
            print(f"{iteration + 1}/{iterations}: {np.mean(np.concatenate(batch['actions'])):.4f} retrains a decision")
    return weights_of(actor)


def _update(
    actor: nn.Sequential, critic: nn.Sequential, optimiser: Any, batch: dict[str, Any], rng: np.random.Generator
) -> None:
    """Four epochs of clipped policy gradient."""
    inputs = torch.tensor(batch["inputs"], dtype=torch.float32)
    actions = torch.tensor(batch["actions"], dtype=torch.float32)
    scaled = (batch["advantages"] - batch["advantages"].mean()) / (batch["advantages"].std() + 1e-8)
    wanted, returns = torch.tensor(scaled, dtype=torch.float32), torch.tensor(batch["returns"], dtype=torch.float32)
    with torch.no_grad():
        before = torch.distributions.Bernoulli(logits=actor(inputs)[:, 0]).log_prob(actions)
    for _ in range(4):
        for rows in np.array_split(rng.permutation(len(inputs)), max(1, len(inputs) // 512)):
            chosen = torch.tensor(rows)
            policy = torch.distributions.Bernoulli(logits=actor(inputs[chosen])[:, 0])
            change = (policy.log_prob(actions[chosen]) - before[chosen]).exp()
            gain = torch.minimum(change * wanted[chosen], change.clamp(1 - CLIP, 1 + CLIP) * wanted[chosen]).mean()
            miss = (critic(inputs[chosen])[:, 0] - returns[chosen]).square().mean()
            loss = 0.5 * miss - gain - ENTROPY * policy.entropy().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    weights = train(args.iterations, args.episodes, args.seed)
    arrays = dict(zip(("w1", "b1", "w2", "b2", "w3", "b3"), (w.astype(np.float32) for w in weights), strict=True))
    np.savez_compressed(args.out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
