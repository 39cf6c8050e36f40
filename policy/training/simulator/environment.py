"""The retrain problem as a stable-baselines3 `VecEnv` (natively batched) and as one Gymnasium environment.

Service k of `LLMVecEnv(seed=s)` and `LLMEnv(service=k)` reset with seed s live the same life, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from policy.history import Floats
from policy.observation.multistream import FEATURES
from policy.observation.paper import OBSERVATION
from policy.training.simulator.dynamics import HIDDEN, Dynamics, Rules
from policy.training.simulator.pool import Pool


def observation_space(rules: Rules) -> spaces.Box:
    """Unbounded: what is measured is noisy, and an ONNX policy's own guard judges what is believable."""
    width = len(OBSERVATION) if rules.observation == "paper" else len(FEATURES)
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


class LLMVecEnv(VecEnv):
    """N services at once. A finished episode starts anew in the same step, as stable-baselines3 expects.

    With `hidden` an observation is a dict: "seen" as usual, and "hidden" (N, HIDDEN) for what is thrown away after.
    Rewards are multiplied by `scale`, which makes the critic's task easier where they are small.
    """

    def __init__(
        self, pool: Pool, count: int, rules: Rules, seed: int = 0, hidden: bool = False, scale: float = 1.0
    ) -> None:
        self.dynamics = Dynamics(pool, count, rules, seed)
        self.hidden, self.scale = hidden, scale
        self.render_mode = None
        space: spaces.Space[Any] = observation_space(rules)
        if hidden:
            space = spaces.Dict({"seen": space, "hidden": spaces.Box(-np.inf, np.inf, (HIDDEN,), np.float32)})
        super().__init__(count, space, spaces.Discrete(3))
        self._actions = np.zeros(count, dtype=np.int64)
        self._returns, self._lengths = np.zeros(count), np.zeros(count, dtype=np.int64)

    def _observed(self, observation: Floats, rows: NDArray[np.int64] | None = None) -> Any:
        seen = observation.astype(np.float32)
        return {"seen": seen, "hidden": self.dynamics.hidden(rows).astype(np.float32)} if self.hidden else seen

    def reset(self) -> Any:
        """Every service at its first step."""
        if self._seeds[0] is not None:
            self.dynamics.seed(int(self._seeds[0]))
            self._reset_seeds()
        self._returns[:], self._lengths[:] = 0.0, 0
        return self._observed(self.dynamics.reset())

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """One step of every service."""
        outcome = self.dynamics.step(self._actions)
        self._returns += outcome.reward
        self._lengths += 1
        done = outcome.terminated | outcome.truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        observed = self._observed(outcome.observation)
        ended = np.flatnonzero(done)
        if len(ended):
            for row in ended:
                last = {k: v[row].copy() for k, v in observed.items()} if self.hidden else observed[row].copy()
                infos[row] = {
                    "terminal_observation": last,
                    "TimeLimit.truncated": bool(outcome.truncated[row]),
                    "episode": {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": 0.0},
                }
            self._returns[ended], self._lengths[ended] = 0.0, 0
            begun = self._observed(self.dynamics.reset(ended), ended)
            if self.hidden:
                for name, values in observed.items():
                    values[ended] = begun[name]
            else:
                observed[ended] = begun
        return observed, (self.scale * outcome.reward).astype(np.float32), done, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Possible actions, (N, 3): while a job runs, hold."""
        return self.dynamics.masks()

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of this vector, once per service."""
        return [getattr(self, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of this vector."""
        setattr(self, attr_name, value)

    def has_attr(self, attr_name: str) -> bool:
        """Whether this vector has the attribute."""
        return hasattr(self, attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a batched method once and hand each service its row."""
        result = getattr(self, method_name)(*args, **kwargs)
        return [result[row] for row in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: int | Sequence[int] | None) -> list[int]:
        if indices is None:
            return list(range(self.num_envs))
        return [indices] if isinstance(indices, int) else list(indices)


class LLMEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One service: observe six numbers (or the multi-stream features), hold (0) or retrain on AWS (1) or Azure (2).

    See `policy.observation.paper.observation` for the table of the six numbers and
    `policy.observation.multistream` for the others.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own attribute)

    def __init__(self, pool: Pool, rules: Rules | None = None, service: int = 0) -> None:
        self.rules = rules or Rules(observation="paper")
        self.dynamics = Dynamics(pool, 1, self.rules, first_service=service)
        self.observation_space = observation_space(self.rules)
        self.action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The first step of the next episode; a seed starts the stream of episodes anew."""
        super().reset(seed=seed)
        if seed is not None:
            self.dynamics.seed(seed)
        return self.dynamics.reset()[0].astype(np.float32), self._info(0.0)

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Act, and let one step pass."""
        outcome = self.dynamics.step(np.array([int(action)]))
        return (
            outcome.observation[0].astype(np.float32),
            float(outcome.reward[0]),
            bool(outcome.terminated[0]),
            bool(outcome.truncated[0]),
            self._info(float(outcome.cost_usd[0])),
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Possible actions, (3,)."""
        mask: NDArray[np.bool_] = self.dynamics.masks()[0]
        return mask

    def _info(self, cost_usd: float) -> dict[str, Any]:
        return {"cost_usd": cost_usd, "in_flight": bool(self.dynamics.in_flight()[0])}
