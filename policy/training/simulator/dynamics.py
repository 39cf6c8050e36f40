"""The simulator: N services at once over a pool of traces, behind the vectorised and the single environment.

Each service has its own stream of randomness, [seed, service, episode], drawn when an episode starts: which trace,
measurement noise, load, and whether a job fails. So service k of a vector of any size goes through the same episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from policy.history import Floats
from policy.observation.multistream import WIDTH, observations
from policy.observation.paper import OBSERVATION, REDEPLOY_WINDOW_STEPS, SMOOTHING_STEPS, observation
from policy.observation.tracker import FORMER, Tracker
from policy.training.simulator import reward as rewards
from policy.training.simulator.pool import Pool
from shared.errors import InvalidInputError

Observation = Literal["paper", "multistream"]
#: longest delay of a job in steps
_LONGEST: Final = 16
_ROOM: Final = 256  # steps a trace may have
#: steps ahead of which `Dynamics.hidden` tells what a retrain gains and what holding loses
_AHEAD: Final = np.array([0, 2, 5, 10, 20, 40])
#: brings gains and losses of quality to the order of one
_GAIN_SCALE: Final = 4.0
#: columns of `Dynamics.hidden`, and those of them that the auxiliary head learns to predict
HIDDEN: Final = 5 + 2 * len(_AHEAD) - 1
AUXILIARY: Final = slice(5, HIDDEN)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an episode is about. The load and failures are drawn afresh for each episode."""

    observation: Observation = "multistream"
    reward: rewards.Reward = "usd"
    failing_share: float = 0.1  # share of episodes in which jobs may fail
    highest_failure_rate: float = 0.2
    live_view_share: float = 0.25  # share of episodes seen as live: nobody re-evaluates former models
    measurement_window: tuple[int, int] = (1, 1)  # there, quality is a mean over from .. to steps of one model
    external_retrain_share: float = 0.0  # share of episodes in which others start one to three retrains
    load_spread: float = 3.0  # request rate and latency are multiplied by exp(uniform(-spread, spread))
    in_order: bool = False  # service k runs trace k of the pool, for scoring; otherwise traces are drawn
    max_steps: int | None = None  # cut an episode (truncated) before its trace ends


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one step of N services. `observation` is of the new step, also where the episode is over."""

    observation: Floats
    reward: Floats
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    cost_usd: Floats


class Dynamics:
    """The state of N services."""

    def __init__(self, pool: Pool, count: int, rules: Rules, seed: int = 0, first_service: int = 0) -> None:
        if int(pool.steps.max()) > _ROOM or int(pool.delays.max()) > _LONGEST:
            raise InvalidInputError(
                f"the environment takes traces of up to {_ROOM} steps and {_LONGEST} steps of delay"
            )
        self.pool, self.count, self.rules = pool, count, rules
        self.first_service = first_service
        self.rows = np.arange(count)
        self.tracker = Tracker(count)
        self.seed(seed)

    @property
    def width(self) -> int:
        """Length of one observation."""
        return len(OBSERVATION) if self.rules.observation == "paper" else WIDTH

    def seed(self, seed: int) -> None:
        """Start every stream of randomness anew; `reset` follows."""
        n = self.count
        self._seed = seed
        self.episode = np.zeros(n, dtype=np.int64)
        self.trace, self.t, self.serving = (np.zeros(n, dtype=np.int64) for _ in range(3))
        self.pending, self.live_at = np.full(n, -1), np.zeros(n, dtype=np.int64)
        self.fails = np.zeros((n, _ROOM), dtype=bool)
        self.external_retrains = np.zeros(
            (n, _ROOM), dtype=np.int64
        )  # a retrain that somebody else starts, if none runs
        self.noise = np.zeros((n, _ROOM))
        self.former = np.full((n, FORMER), -1)  # first, previous and the model before
        self.former_noise = np.zeros((n, FORMER, _ROOM))  # NaN: nobody re-evaluates them
        self.load = np.ones((n, 2))
        # steps that a measurement of quality is the mean of, the serving model's first one, and sums over single steps
        self.window, self.live_from = np.ones(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.measured = np.zeros((n, _ROOM + 1))
        self.samples = np.full((n, SMOOTHING_STEPS, 5), np.nan)  # newest last: cpu, memory, rate, latency, quality
        self.started = np.full((n, REDEPLOY_WINDOW_STEPS), False)

    def reset(self, rows: NDArray[np.int64] | None = None) -> Floats:
        """Begin a new episode in `rows` (all by default); their observations, (len(rows), width)."""
        rows = self.rows if rows is None else rows
        pool, rules = self.pool, self.rules
        for row in rows:
            rng = np.random.default_rng([self._seed, self.first_service + int(row), int(self.episode[row])])
            trace = int(row) % len(pool) if rules.in_order else int(rng.integers(len(pool)))
            self.trace[row] = trace
            self.noise[row] = rng.standard_normal(_ROOM) * pool.noise_sd[trace]
            rate = rng.uniform(0.0, rules.highest_failure_rate) if rng.random() < rules.failing_share else 0.0
            self.fails[row] = rng.random(_ROOM) < rate
            live_view = rng.random() < rules.live_view_share
            self.former_noise[row] = np.nan if live_view else self._former_noise(rng, trace)
            self.load[row] = np.exp(rng.uniform(-rules.load_spread, rules.load_spread, 2))
            self.external_retrains[row] = 0
            if rules.external_retrain_share and rng.random() < rules.external_retrain_share:
                when = rng.integers(0, pool.steps[trace], rng.integers(1, 4))
                self.external_retrains[row, when] = rng.integers(1, 3, len(when))
            self.window[row] = (
                rng.integers(rules.measurement_window[0], rules.measurement_window[1] + 1) if live_view else 1
            )
            self.noise[row] *= np.sqrt(self.window[row])  # a measurement of a whole window has the trace's noise
        self.episode[rows] += 1
        self.t[rows] = self.serving[rows] = self.live_from[rows] = 0
        self.pending[rows] = -1
        self.former[rows] = -1
        self.samples[rows] = np.nan
        self.started[rows] = False
        begun = Tracker(len(rows))
        chosen = self.trace[rows]
        reevaluates = np.isfinite(self.former_noise[rows, 0, 0])
        begun.configure(
            np.arange(len(rows)), pool.step_value_usd[chosen], pool.delays[chosen].astype(np.float64), reevaluates
        )
        self._see(rows, np.zeros(len(rows), dtype=bool), begun)
        self.tracker.restart(rows, begun)
        return self._observed(rows, begun)

    def in_flight(self) -> NDArray[np.bool_]:
        """Where a job runs, so that only hold is possible."""
        return self.pending >= 0

    def masks(self) -> NDArray[np.bool_]:
        """Possible actions, (N, 3): while a job runs, hold; what somebody else starts, that."""
        free = ~self.in_flight()
        possible = np.stack([np.ones_like(free), free, free], axis=1)
        started = self._started_by_others()
        return np.where(started[:, None] > 0, np.arange(3)[None, :] == started[:, None], possible)

    def _started_by_others(self) -> NDArray[np.int64]:
        """The retrain that somebody else starts at the present step, (N,); 0: none."""
        return np.where(self.in_flight(), 0, self.external_retrains[self.rows, self.t])

    def best_action(self) -> NDArray[np.int64]:
        """The optimal action of someone who knows the future, for the actual state; hold while a job runs."""
        pool, t, s = self.pool, self.t, self.serving
        here = pool.value(self.trace, s, t)
        hold = pool.loss_usd[pool.at(self.trace, s, t)] + pool.value(self.trace, s, t + 1)
        started = np.stack([self._start_value(self.rows, c) for c in (0, 1)], axis=1)
        action = np.where(hold <= here + 1e-4, 0, np.argmin(started, axis=1) + 1)
        return np.where(self.in_flight(), 0, action)

    def _start_value(self, rows: NDArray[np.int64], cloud: int | NDArray[np.int64]) -> Floats:
        """Cost from now on when a job starts now on `cloud` and all goes well afterwards."""
        pool = self.pool
        trace, t, s = self.trace[rows], self.t[rows], self.serving[rows]
        delay = pool.delays[trace, cloud]
        ahead = np.arange(_LONGEST)[None, :]
        step = t[:, None] + ahead
        counted = (ahead < delay[:, None]) & (step < pool.steps[trace][:, None])
        index = pool.at(trace[:, None], s[:, None], np.where(counted, step, t[:, None]))
        lost = (pool.loss_usd[index] * counted).sum(axis=1)
        return np.asarray(pool.job_usd[pool.line_starts[trace] + t, cloud] + lost + pool.value(trace, t, t + delay))

    def step(self, action: NDArray[np.int64]) -> Step:
        """Act, and let one step pass. While a job runs an action is a hold; what somebody else starts is not judged."""
        pool, rules = self.pool, self.rules
        action = np.where(self.in_flight(), 0, action)
        by_others = self._started_by_others()
        action = np.where(by_others > 0, by_others, action)
        trace, t = self.trace, self.t
        here = pool.at(trace, self.serving, t)
        lost = pool.loss_usd[here].astype(np.float64)
        job = np.zeros(self.count)
        extra = np.zeros(self.count)
        starting = np.flatnonzero(action)
        if len(starting):
            cloud = action[starting] - 1
            job[starting] = pool.job_usd[pool.line_starts[trace[starting]] + t[starting], cloud]
            dearer = self._start_value(starting, cloud) - pool.value(
                trace[starting], self.serving[starting], t[starting]
            )
            extra[starting] = np.where(by_others[starting] > 0, 0.0, dearer)
            self.pending[starting] = t[starting]
            self.live_at[starting] = t[starting] + pool.delays[trace[starting], cloud]
        idle = self.pending < 0
        following = pool.value(trace, self.serving, t + 1)
        extra += np.where(idle, lost + following - pool.value(trace, self.serving, t), 0.0)
        quality = pool.quality[here].astype(np.float64)

        self.t = t + 1
        terminated = self.t >= pool.steps[trace]
        truncated = np.zeros_like(terminated)
        if rules.max_steps is not None:
            truncated = ~terminated & (self.t >= rules.max_steps)
        due = (self.pending >= 0) & (self.live_at == self.t)
        failed = due & self.fails[self.rows, np.minimum(self.t, _ROOM - 1)]
        if failed.any():
            value_old = pool.value(trace, self.serving, self.t)
            extra += np.where(failed, value_old - pool.value(trace, np.maximum(self.pending, 0), self.t), 0.0)
        live = due & ~failed & ~terminated
        was = self.former
        known = was[:, 0] >= 0
        renewed = np.column_stack([np.where(known, was[:, 0], 0), self.serving, np.where(known, was[:, 1], -1)])
        self.former = np.where(live[:, None], renewed, was)
        self.serving = np.where(live, self.pending, self.serving)
        self.pending = np.where(due, -1, self.pending)
        self.started = np.roll(self.started, -1, axis=1)
        self.started[:, -1] = action > 0
        # an episode that is over still shows its last step
        self.t = np.minimum(self.t, pool.steps[trace] - 1)
        self.live_from = np.where(live, self.t, self.live_from)
        self._see(self.rows, live, self.tracker)

        if rules.reward == "paper":
            reward = rewards.paper(quality, quality, action)
        elif rules.reward == "regret":
            reward = rewards.regret(extra, pool.optimum_usd[trace])
        else:
            reward = rewards.usd(lost, job, pool.step_value_usd[trace])
        return Step(self._observed(self.rows, self.tracker), reward, terminated, truncated, lost + job)

    def _see(self, rows: NDArray[np.int64], live: NDArray[np.bool_], tracker: Tracker) -> None:
        """Measure the present step of `rows`; `live` (len(rows),) says where a new model serves from now on."""
        pool, t, trace = self.pool, self.t[rows], self.trace[rows]
        quality = self._measured(rows, pool.quality[pool.at(trace, self.serving[rows], t)] + self.noise[rows, t])
        line = pool.line_starts[trace] + t
        latency, rate, cpu, memory = pool.operations[line].T
        rate, latency = rate * self.load[rows, 0], latency * self.load[rows, 1]
        if self.rules.observation == "paper":
            self.samples[rows, :-1] = self.samples[rows, 1:]
            self.samples[rows, -1] = np.stack([cpu, memory, rate, latency, quality], axis=1)
        else:
            former = self._former_quality(rows)
            tracker.push(quality, latency, rate, cpu, memory, pool.job_usd[line], live, self.serving[rows], former)

    def _measured(self, rows: NDArray[np.int64], quality: Floats) -> Floats:
        """The mean of the serving model's `quality` over the window of `rows` up to the present step, (len(rows),)."""
        end, window = self.t[rows] + 1, self.window[rows]
        self.measured[rows, end] = self.measured[rows, end - 1] + quality
        start = np.maximum(end - window, self.live_from[rows])
        mean = (self.measured[rows, end] - self.measured[rows, start]) / (end - start)
        return np.where(window == 1, quality, mean)

    def _former_noise(self, rng: np.random.Generator, trace: int) -> Floats:
        return rng.standard_normal((FORMER, _ROOM)) * self.pool.noise_sd[trace]

    def _former_quality(self, rows: NDArray[np.int64]) -> Floats:
        """What re-evaluating the former models of `rows` gives at the present step, (len(rows), FORMER)."""
        models, t, trace = self.former[rows], self.t[rows], self.trace[rows]
        index = self.pool.at(trace[:, None], np.maximum(models, 0), t[:, None])
        noise = self.former_noise[rows[:, None], np.arange(FORMER)[None, :], t[:, None]]
        # one model is measured once
        noise[:, 1] = np.where(models[:, 1] == models[:, 0], noise[:, 0], noise[:, 1])
        noise[:, 2] = np.where(models[:, 2] == models[:, 0], noise[:, 0], noise[:, 2])
        return np.where(models >= 0, self.pool.quality[index] + noise, np.nan)

    def _observed(self, rows: NDArray[np.int64], tracker: Tracker) -> Floats:
        """Observations of the present step of `rows`, which `tracker` follows, (len(rows), width)."""
        if self.rules.observation == "multistream":
            return observations(tracker)
        cpu, memory, rate, latency, quality = np.moveaxis(self.samples[rows], 2, 0)
        return observation(cpu, memory, rate, latency, quality, self.started[rows].sum(axis=1).astype(np.float64))

    def hidden(self, rows: NDArray[np.int64] | None = None) -> Floats:
        """What only training may see of `rows` (all by default), (len(rows), HIDDEN): true quality of the serving and
        of a fresh model, time left, costs; then, some steps ahead, how much better a model of now would be and how much
        the serving one will have changed.
        """
        rows = self.rows if rows is None else rows
        pool, trace, t, serves = self.pool, self.trace[rows], self.t[rows], self.serving[rows]
        last = pool.steps[trace][:, None] - 1
        step = np.minimum(t[:, None] + _AHEAD[None, :], last)
        kept = pool.quality[pool.at(trace[:, None], serves[:, None], step)].astype(np.float64)
        gains = pool.quality[pool.at(trace[:, None], t[:, None], step)] - kept
        serving = kept[:, 0]
        fresh = pool.quality[pool.at(trace, t, t)].astype(np.float64)
        optimum = pool.optimum_usd[trace]
        here = pool.value(trace, serves, t)
        renewed = pool.value(trace, t, t)
        left = (pool.steps[trace] - t) / _ROOM
        known = np.stack([serving, fresh, left, here / optimum, (here - renewed) / optimum], axis=1)
        return np.concatenate([known, _GAIN_SCALE * gains, _GAIN_SCALE * (kept[:, 1:] - kept[:, :1])], axis=1)
