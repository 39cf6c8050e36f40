"""Replay a network over many traces at once: the decisions of `replay.replay`, hundreds of times faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.observation.multistream import observations
from policy.observation.tracker import FORMER, Tracker
from policy.policies import NetworkPolicy
from policy.training.simulator.replay import measured, replay
from policy.training.simulator.trace import Floats, Floats32, Trace
from shared.quality import quality


def replay_many(traces: Sequence[Trace], policy: NetworkPolicy, seeds: Sequence[int]) -> list[list[int]]:
    """The actions of a multi-stream network on every trace, each as `replay(trace, policy, seed)` would give them."""
    n, longest = len(traces), max(trace.steps for trace in traces)
    steps = np.array([trace.steps for trace in traces])
    tracker = Tracker(n)
    step_value = [t.value_usd_per_quality_hour * t.step_minutes / 60.0 for t in traces]
    delays = np.array([t.delays for t in traces], dtype=np.float64)
    tracker.configure(np.arange(n), np.array(step_value), delays, np.full(n, True))
    latency, rate, cpu, memory = (
        np.stack([_stretched(getattr(trace, name), longest) for trace in traces])
        for name in ("latency_s", "request_rate_rps", "cpu", "memory")
    )
    costs = np.stack([_stretched(trace.job_usd, longest) for trace in traces])  # (N, T, 2)
    seen = np.stack(
        [_stretched(quality(*measured(t, 0, s)), longest) for t, s in zip(traces, seeds, strict=True)]
    )  # measured quality of whichever model serves
    # measured quality of the first, the previous and the model before, (N, FORMER, T)
    former = np.full((n, FORMER, longest), np.nan)
    serving, pending = np.zeros(n, dtype=np.int64), np.full(n, -1)
    live_at = np.zeros(n, dtype=np.int64)
    decisions = np.zeros((n, longest), dtype=np.int64)
    lost = np.zeros(n, dtype=bool)
    for t in range(longest):
        live = (pending >= 0) & (live_at == t) & (t < steps)
        for row in np.flatnonzero(live):
            first = former[row, 0] if np.isfinite(former[row, 0, 0]) else seen[row]
            former[row] = np.stack([first, seen[row], former[row, 1]])
            seen[row] = _stretched(quality(*measured(traces[int(row)], int(pending[row]), seeds[int(row)])), longest)
        serving = np.where(live, pending, serving)
        pending = np.where(live, -1, pending)
        tracker.push(
            seen[:, t], latency[:, t], rate[:, t], cpu[:, t], memory[:, t], costs[:, t], live, serving, former[:, :, t]
        )
        asked = (pending < 0) & (t < steps)
        observed = observations(tracker)
        lost |= asked & policy.outside(observed).any(axis=1)
        action = np.where(asked, policy.most_probable(observed), 0)
        decisions[:, t] = action
        for row in np.flatnonzero(action):
            pending[row], live_at[row] = t, t + traces[int(row)].delays[action[row] - 1]
    # where the network met what it does not know, the fall-back rule spoke: that takes the whole history
    return [
        replay(trace, policy, seed) if lost[k] else [int(a) for a in decisions[k, : trace.steps]]
        for k, (trace, seed) in enumerate(zip(traces, seeds, strict=True))
    ]


def _stretched(values: Floats | Floats32, longest: int) -> Floats:
    """The last entry repeated up to `longest`, as float64; what comes after the end is never decided on."""
    known = np.asarray(values, dtype=np.float64)
    return np.concatenate([known, np.repeat(known[-1:], longest - len(known), axis=0)])
