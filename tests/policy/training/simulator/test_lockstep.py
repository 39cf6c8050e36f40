"""Many traces at once give the decisions of one trace at a time."""

from __future__ import annotations

from policy.catalogue import SHIPPED
from policy.policies import NetworkPolicy
from policy.training.simulator.generators import CHEAP, WIDE, generate
from policy.training.simulator.lockstep import replay_many
from policy.training.simulator.replay import replay


def test_the_decisions_are_those_of_single_replays() -> None:
    policy = NetworkPolicy(SHIPPED["ppo"], "ppo")
    traces = [generate(family, 7, spread=CHEAP) for family in ("sudden", "recurring", "accel", "stable")]
    traces += [generate(family, 8, spread=WIDE) for family in ("gradual", "transient", "mixture")]
    traces.append(generate("turnover", 0))
    seeds = [3, 1, 4, 1, 5, 9, 2, 6]
    together = replay_many(traces, policy, seeds)
    assert together == [replay(trace, policy, seed) for trace, seed in zip(traces, seeds, strict=True)]
    assert sum(action > 0 for decisions in together for action in decisions) > 5
