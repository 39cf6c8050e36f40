"""PPO training (stable-baselines3) on the batched environment, behaviour cloning of the optimal plan first.

One recipe is a frozen `Recipe`; `PRESETS` holds the ones that made the shipped policies. Seeded throughout, one core.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import nn

from policy.history import Floats
from policy.observation.multistream import features_of
from policy.policies import NetworkPolicy
from policy.training.ppo.auxiliary import AuxiliaryPPO
from policy.training.ppo.evaluate import calibrate
from policy.training.ppo.export import actor_probabilities, export
from policy.training.ppo.networks import STREAMS, AsymmetricPolicy, MultiStream, PaperExtractor, actor
from policy.training.ppo.policy_iteration import ROLLOUTS, iterate_policy
from policy.training.simulator.dynamics import Dynamics, Observation, Rules
from policy.training.simulator.environment import LLMVecEnv
from policy.training.simulator.generators import CHEAP, FAMILIES, USUAL, Spread
from policy.training.simulator.pool import Pool, training_pool
from policy.training.simulator.reward import Reward

#: brings returns to the order of one
_SCALE: Final[dict[Reward, float]] = {"usd": 0.1, "regret": 20.0, "paper": 0.1}

#: rollouts between two saves
_SAVE_EVERY: Final = 10
#: traces of each family on which the readiness to retrain is chosen; no more than are trained on
CALIBRATION_TRACES: Final = 200
#: the weights are averaged over this last share of the training
AVERAGED_SHARE: Final = 0.25

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out of training."""

    observation: Observation = "paper"
    reward: Reward = "regret"
    steps: int = 50_000
    seed: int = 0
    traces: int = 210
    families: tuple[str, ...] = tuple(FAMILIES)
    spread: Spread = USUAL
    wide_share: float = 0.0
    listed_share: float = 0.0  # see `policy.training.simulator.pool.training_pool`
    live_view_share: float = 0.25  # see `policy.training.simulator.dynamics.Rules`, as the next two
    measurement_window: tuple[int, int] = (1, 1)
    external_retrain_share: float = 0.0
    num_envs: int = 64
    n_steps: int = 32
    num_minibatches: int = 4
    epochs: int = 5
    learning_rate: float = 1e-3
    gamma: float = 0.98
    gae_lambda: float = 0.95
    ent_coef: float = 0.003
    rounds: int = 1  # the steps are divided into rounds, each on fresh traces
    cloning_steps: int = 0  # environment steps to imitate the optimal plan on before PPO
    iteration_pools: int = 0  # pools of `traces` that `policy.training.ppo.policy_iteration` rolls out after PPO
    cloning_minibatches: int = 1  # what 16 steps of all environments are divided into
    without: tuple[str, ...] = ()  # streams the actor is not shown: performance, resources, deployment


#: fields of a recipe as files of earlier versions name them -> now
_FORMER_FIELDS: Final = {
    "unseen_share": "live_view_share",
    "windows": "measurement_window",
    "unasked_share": "external_retrain_share",
    "services": "num_envs",
    "minibatches": "num_minibatches",
    "entropy": "ent_coef",
    "clone_steps": "cloning_steps",
    "clone_minibatches": "cloning_minibatches",
    "improvement_pools": "iteration_pools",
}


def recipe_in(origin: dict[str, Any]) -> dict[str, Any]:
    """The recipe that a network's file says it was made by (`metadata["origin"]`), by today's names of its fields."""
    return {_FORMER_FIELDS.get(name, name): value for name, value in origin["recipe"].items()}


#: family -> its share of the traces that `ppo` is trained on: most of those that leave most to be lost, few of those
#: where what was lost comes back by itself, as they look like the others at first and teach to wait there too
SHARES: Final = {
    "stable": 2,
    "gradual": 3,
    "sudden": 4,
    "recurring": 4,
    "randwalk": 3,
    "accel": 3,
    "mixture": 4,
    "reverting": 1,
    "seasonal": 3,
    "transient": 2,
    "turnover": 6,
    "textbook": 4,
}

PRESETS: Final[dict[str, Recipe]] = {
    "ppo-paper": Recipe(
        seed=1,
        steps=1_500_000,
        traces=400,
        families=(*FAMILIES, "turnover"),
        spread=CHEAP,
        num_envs=512,
        n_steps=32,
        num_minibatches=4,
        epochs=4,
        cloning_steps=200_000,
    ),
    "ppo": Recipe(
        observation="multistream",
        seed=1,
        steps=24_000_000,
        rounds=20,
        traces=2400,
        families=tuple(family for family, share in SHARES.items() for _ in range(share)),
        wide_share=0.2,
        listed_share=0.5,
        live_view_share=0.3,
        measurement_window=(1, 12),
        external_retrain_share=0.2,
        num_envs=512,
        n_steps=64,
        num_minibatches=16,
        epochs=3,
        gamma=0.995,
        cloning_steps=600_000,
        cloning_minibatches=4,
        iteration_pools=4,
        ent_coef=0.005,
    ),
}


class _Average:
    """The mean of a model's weights over the rollouts it was shown: steadier than the last ones alone."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: dict[str, torch.Tensor] = {}

    def add(self, policy: nn.Module) -> None:
        """Take in the present weights."""
        self.count += 1
        for name, value in policy.state_dict().items():
            mean = self._mean.setdefault(name, torch.zeros_like(value, dtype=torch.float64))
            mean += (value.double() - mean) / self.count

    def put_into(self, policy: nn.Module) -> None:
        """Replace the weights by their mean."""
        policy.load_state_dict({name: self._mean[name].to(v.dtype) for name, v in policy.state_dict().items()})


class _Report(BaseCallback):
    """Tells the caller how far it is, averages the last weights, and saves now and then."""

    def __init__(
        self, progress: Progress, done: int, total: int, average: _Average, save: Callable[[], object]
    ) -> None:
        super().__init__()
        self._progress, self._done, self._total, self._save = progress, done, total, save
        self._average = average
        self._rollouts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._rollouts += 1
        done = min(self._done + self.num_timesteps, self._total)
        self._progress("ppo", done, self._total)
        if done > (1.0 - AVERAGED_SHARE) * self._total:
            self._average.add(self.model.policy)
        if self._rollouts % _SAVE_EVERY == 0:
            self._save()


def linear_schedule(start: float, turn: int, rounds: int) -> Callable[[float], float]:
    """A learning rate that falls in a straight line from `start` to a tenth of it over all rounds, during `turn`."""
    return lambda left: start * (0.1 + 0.9 * (rounds - turn - 1 + left) / rounds)


def rules_of(recipe: Recipe) -> Rules:
    """The rules of the episodes it is trained on."""
    return Rules(
        recipe.observation,
        recipe.reward,
        live_view_share=recipe.live_view_share,
        measurement_window=recipe.measurement_window,
        external_retrain_share=recipe.external_retrain_share,
    )


def pool_of(recipe: Recipe, seed: int) -> Pool:
    """Traces of the kind it is trained on."""
    return training_pool(recipe.traces, seed, recipe.families, recipe.spread, recipe.wide_share, recipe.listed_share)


def build(recipe: Recipe, env: LLMVecEnv) -> Any:
    """The untrained model of a recipe."""
    batch = recipe.num_envs * recipe.n_steps
    common: dict[str, Any] = {
        "n_steps": recipe.n_steps,
        "batch_size": batch // recipe.num_minibatches,
        "n_epochs": recipe.epochs,
        "learning_rate": linear_schedule(recipe.learning_rate, 0, recipe.rounds),
        "gamma": recipe.gamma,
        "gae_lambda": recipe.gae_lambda,
        "ent_coef": recipe.ent_coef,
        "seed": recipe.seed,
        "device": "cpu",
    }
    model: Any
    if recipe.observation == "paper":
        shape = {"features_extractor_class": PaperExtractor, "net_arch": [64, 64]}
        model = PPO("MlpPolicy", env, policy_kwargs=shape, **common)
    else:
        shape = {"net_arch": {"pi": [64], "vf": [64]}, "activation_fn": nn.ReLU}
        model = AuxiliaryPPO(AsymmetricPolicy, env, policy_kwargs=shape, **common)
    model.set_logger(Logger(None, []))  # the library's own makes a temporary directory for every round
    return model


def step_and_reset(env: Dynamics, action: NDArray[np.int64]) -> Floats:
    """Act, (N,), and let one step pass: the observations after it, (N, D); an episode that is over starts anew."""
    outcome = env.step(action)
    over = np.flatnonzero(outcome.terminated | outcome.truncated)
    if len(over):
        outcome.observation[over] = env.reset(over)
    return outcome.observation


def random_rollout(env: Dynamics, steps: int, seed: int) -> Floats:
    """Observations of rare random retrains, (steps * N, D): what the scaler is fitted to."""
    rng = np.random.default_rng(seed)
    seen = [env.reset()]
    for _ in range(steps):
        action = np.where(rng.random(env.count) < 0.03, rng.integers(1, 3, env.count), 0)
        seen.append(step_and_reset(env, action))
    return np.concatenate(seen)


def behaviour_cloning(model: Any, recipe: Recipe, pool: Pool, progress: Progress) -> None:
    """Imitate the optimal plan where the policy itself goes (so that its own mistakes are in the lesson)."""
    policy = model.policy
    env = Dynamics(pool, recipe.num_envs, rules_of(recipe), seed=recipe.seed + 77)
    rng = np.random.default_rng(recipe.seed)
    auxiliary = isinstance(model, AuxiliaryPPO)
    optimizer = model.lessons if auxiliary else torch.optim.Adam(policy.parameters(), lr=1e-3)
    observed = env.reset()
    rounds = max(1, recipe.cloning_steps // (recipe.num_envs * 16))
    for done in range(rounds):
        seen, labels, hidden = [], [], []
        for _ in range(16):
            x = torch.as_tensor(observed, dtype=torch.float32)
            free = ~env.in_flight()
            best = env.best_action()
            seen.append(x[free])
            labels.append(torch.as_tensor(best[free]))
            if auxiliary:
                hidden.append(torch.as_tensor(env.hidden()[free], dtype=torch.float32))
            with torch.no_grad():
                chances = torch.softmax(actor(policy, recipe.observation, x)[0], dim=1).numpy()
            drawn = (rng.random((env.count, 1)) > np.cumsum(chances, axis=1)).sum(axis=1).clip(0, 2)
            observed = step_and_reset(env, np.where(rng.random(env.count) < 0.5, best, drawn))
        x, label = torch.cat(seen), torch.cat(labels)
        # one batch needs no shuffling
        order = rng.permutation(len(x)) if recipe.cloning_minibatches > 1 else np.arange(len(x))
        for part in np.array_split(order, recipe.cloning_minibatches):
            logits, features = actor(policy, recipe.observation, x[part])
            loss = nn.functional.cross_entropy(logits, label[part])
            if auxiliary:
                loss = loss + model.auxiliary_loss(features, torch.cat(hidden)[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        progress("cloning", done + 1, rounds)


def set_up_torch() -> None:
    """One thread, and no denormal numbers: what a policy that is sure of itself learns from is full of them, and a
    processor that minds them needs twice the time."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def train(recipe: Recipe, out: Path, progress: Progress) -> dict[str, Any]:
    """Train, then write `out` (.onnx) and the stable-baselines3 archive beside it (.zip). Returns what was done."""
    set_up_torch()
    torch.manual_seed(recipe.seed)
    began = time.monotonic()
    rules = rules_of(recipe)
    digest = hashlib.sha256()
    learning_s, steps_done, shift, ratio, corrected = 0.0, 0, 0.0, 0.0, 0.0
    model: Any = None

    def save() -> dict[str, Any]:
        origin = {
            "recipe": asdict(recipe),
            "steps_done": steps_done,
            "traces_sha256": digest.hexdigest(),
            "steps_per_second": round(steps_done / learning_s) if learning_s else 0,
            "seconds": round(time.monotonic() - began),
            "retrain_shift": shift,
            "judged_ratio": round(ratio, 4),
            "corrected_share": round(corrected, 5),
            "agreement": agreement,
        }
        model.save(out.with_suffix(".zip"))
        export(model.policy, recipe.observation, features_of(recipe.observation), origin, out)
        return origin

    average = _Average()
    agreement: dict[str, int] = {}
    for turn in range(recipe.rounds):
        pool = pool_of(recipe, recipe.seed + turn)
        digest.update(pool.sha256.encode())
        dict_space = recipe.observation == "multistream"
        env = LLMVecEnv(pool, recipe.num_envs, rules, recipe.seed + turn, dict_space, _SCALE[recipe.reward])
        if model is None:
            model = build(recipe, env)
            fit_scalers(model, Dynamics(pool, 256, rules, seed=recipe.seed + 55), recipe)
            if recipe.cloning_steps:
                behaviour_cloning(model, recipe, pool, progress)
        else:
            model.set_env(env)
            model.lr_schedule = linear_schedule(recipe.learning_rate, turn, recipe.rounds)
        started = time.monotonic()
        report = _Report(progress, steps_done, recipe.steps, average, save)
        model.learn(recipe.steps // recipe.rounds, callback=report)
        learning_s += time.monotonic() - started
        steps_done += int(model.num_timesteps)
    average.put_into(model.policy)
    # traces that no weight was trained on, but of the training families
    families = tuple(dict.fromkeys(recipe.families))
    count = max(1, min(CALIBRATION_TRACES, recipe.traces // len(families)))
    judges = {f: training_pool(count, recipe.seed + 1_000, (f,), recipe.spread) for f in families}
    shift, ratio = calibrate(model.policy, recipe.observation, judges, recipe.seed + 99)
    if recipe.iteration_pools:
        pools = [pool_of(recipe, recipe.seed + 500 + k) for k in range(recipe.iteration_pools)]
        for pool in pools:
            digest.update(pool.sha256.encode())
        rollouts = len(pools) * ROLLOUTS
        corrected = iterate_policy(
            model.policy, pools, rules, recipe.seed, lambda done: progress("iteration", done, rollouts)
        )
    save()
    agreement = agreement_of(model.policy, recipe.observation, pool, out)
    return save()


def agreement_of(policy: Any, observation: Observation, pool: Pool, exported: Path) -> dict[str, int]:
    """On how many of 10,000 observations, half of them jittered, the exported file and torch choose the same."""
    seen = random_rollout(Dynamics(pool, 200, Rules(observation), seed=1), 49, seed=1)[:10_000]
    rng = np.random.default_rng(1)
    seen[::2] += rng.normal(0.0, 0.5, seen[::2].shape) * seen.std(axis=0)
    chosen = NetworkPolicy(exported, "exported").most_probable(seen)
    expected = actor_probabilities(policy, observation, seen).argmax(axis=1)
    return {"observations": len(seen), "same_action": int((chosen == expected).sum())}


def fit_scalers(model: Any, env: Dynamics, recipe: Recipe) -> None:
    """Fit every scaler of the model to what is seen under rare random retrains."""
    observed = random_rollout(env, 200, recipe.seed)
    for module in model.policy.modules():
        if hasattr(module, "scaler"):
            module.scaler.fit(observed)
        if isinstance(module, MultiStream):
            for stream in recipe.without:
                module.scaler.scale[STREAMS[stream]] = 0.0


def with_overrides(recipe: Recipe, **changed: Any) -> Recipe:
    """The recipe with what the caller gave (None: not given)."""
    return replace(recipe, **{name: value for name, value in changed.items() if value is not None})
