"""Backtest: replay policies over drift traces, in parallel, and score each run against the optimal plan."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from policy.history import Decider, History
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace, load
from shared.errors import OpportuneError

#: name of the clairvoyant optimum among policies
OPTIMAL: Final = "oracle"

Make = Callable[[str, Trace], Decider]
"""(policy, the trace it will run on) -> a fresh decider; an importable function, as worker processes call it."""


@dataclass(frozen=True)
class Policies:
    """The policies that may be run, whoever offers them. `check` raises InvalidInputError for any other name."""

    check: Callable[[str], None]
    make: Make


@dataclass(frozen=True)
class Run:
    """One policy on one trace. `decisions` has one action per step, 0 while a job is in flight."""

    trace: str
    policy: str
    seed: int
    decisions: tuple[int, ...]
    cost_usd: float
    optimal_cost_usd: float
    retrains: int
    mean_quality: float
    seconds_per_decision: float

    @property
    def ratio(self) -> float:
        """J / J*; 1 for a trace whose optimum costs nothing and was reached."""
        if self.optimal_cost_usd > 0:
            return self.cost_usd / self.optimal_cost_usd
        return 1.0 if self.cost_usd == 0 else float("inf")

    def to_json(self) -> dict[str, Any]:
        """The run as `opportune backtest --json` prints it."""
        return {
            "trace": self.trace,
            "policy": self.policy,
            "seed": self.seed,
            "decisions": list(self.decisions),
            "cost_usd": self.cost_usd,
            "oracle_cost_usd": self.optimal_cost_usd,
            "retrains": self.retrains,
            "mean_quality": self.mean_quality,
            "seconds_per_decision": self.seconds_per_decision,
        }


class Timed:
    """A decider that measures how long its decisions take."""

    def __init__(self, decider: Decider) -> None:
        self.name = decider.name
        self.decider = decider
        self._seconds = 0.0
        self._decisions = 0

    def reset(self, seed: int) -> None:
        """Reset the decider."""
        self.decider.reset(seed)

    def decide(self, history: History) -> int:
        """The decider's action."""
        begin = time.perf_counter()
        action = self.decider.decide(history)
        self._seconds += time.perf_counter() - begin
        self._decisions += 1
        return action

    @property
    def seconds_per_decision(self) -> float:
        """Mean over the decisions so far."""
        return self._seconds / max(1, self._decisions)


def run_one(
    trace: Trace, trace_name: str, policy: str, seed: int, best: tuple[float, tuple[int, ...]], make: Make
) -> Run:
    """Run one policy over one trace. `best` is the optimal plan's (cost, decisions)."""
    seconds = 0.0
    if policy == OPTIMAL:
        decisions = list(best[1])
    else:
        timed = Timed(make(policy, trace))
        decisions = replay(trace, timed, seed)
        seconds = timed.seconds_per_decision
    score = run_cost(trace, decisions)
    return Run(
        trace=trace_name,
        policy=policy,
        seed=seed,
        decisions=tuple(decisions),
        cost_usd=score.cost_usd,
        optimal_cost_usd=best[0],
        retrains=score.retrains,
        mean_quality=score.mean_quality,
        seconds_per_decision=seconds,
    )


def run_file(path: str, policies: Sequence[str], make: Make, seed: int) -> list[Run]:
    """Run every policy over one trace file; the optimum is computed once."""
    trace = load(Path(path))
    best = optimal_plan(trace)
    return [run_one(trace, path, policy, seed, best, make) for policy in policies]


def backtest(
    paths: Sequence[str],
    policies: Sequence[str],
    offered: Policies,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Run]:
    """Run every policy, of those `offered`, over every trace file; in the order of `paths`, then of `policies`.

    `progress` is called with the number of finished traces. `workers` None: one per core.

    Raises:
        InvalidInputError: a file is not a trace, or a policy does not exist; found before anything runs.
    """
    for policy in policies:
        offered.check(policy)
    for path in paths:
        load(Path(path))
    workers = min(len(paths), workers or os.cpu_count() or 1)
    if workers <= 1:
        return [run for done in _serial(paths, policies, offered.make, seed, progress) for run in done]
    finished: dict[int, list[Run]] = {}
    # spawned, not forked: a forked ONNX runtime or BLAS thread pool may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        jobs = {pool.submit(run_file, path, policies, offered.make, seed): index for index, path in enumerate(paths)}
        try:
            for job in as_completed(jobs):
                finished[jobs[job]] = job.result()
                progress(len(finished))
        except (KeyboardInterrupt, OpportuneError):
            pool.shutdown(cancel_futures=True)
            raise
    return [run for index in range(len(paths)) for run in finished[index]]


def _serial(
    paths: Sequence[str], policies: Sequence[str], make: Make, seed: int, progress: Callable[[int], None]
) -> Iterator[list[Run]]:
    for done, path in enumerate(paths, start=1):
        yield run_file(path, policies, make, seed)
        progress(done)


def _one_thread() -> None:
    """Each worker is one thread of work; more would fight over the cores."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
