"""Whose measurement it is in the slot of a swap."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.policy.attribution import KINDS, ratios
from policy.catalogue import SHIPPED
from policy.policies import NetworkPolicy
from policy.training.simulator.dynamics import Dynamics, Rules
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool


@pytest.mark.parametrize("name", KINDS)
def test_the_slot_of_a_swap_is_measured_as_named(name: str) -> None:
    """After a fall, a retrain of a few steps: what the network is told of the new model's first measurements."""
    pool = Pool([generate("sudden", 900_011)])
    rules = Rules(in_order=True, failing_share=0.0, live_view_share=1.0, load_spread=0.0)
    plain, env = Dynamics(pool, 1, rules, 5), KINDS[name](pool, 1, rules, 5)
    for each in (plain, env):
        each.reset()
    for t in range(60):
        before = float(plain.tracker.last[0, 0])
        for each in (plain, env):
            each.step(np.array([int(t == 40)]))
        assert plain.t == env.t
        if plain.serving[0] == 40:
            break
    own = float(plain.tracker.last[0, 0])
    assert abs(own - before) > 0.03
    assert plain.tracker.retrains[0] == 1
    told = {"measured right": (1, own), "the old one's": (1, before), "missing": (0, before)}
    assert (env.tracker.retrains[0], env.tracker.last[0, 0]) == told[name]
    for each in (plain, env):
        each.step(np.array([0]))
    assert env.tracker.retrains[0] == 1
    assert env.tracker.last[0, 0] == plain.tracker.last[0, 0]
    assert (env.tracker.fresh[0] == env.tracker.last[0, 0]) == (name == "missing")


def test_no_swap_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """All live the same traces under the same noise: whoever never retrains cannot tell them apart."""
    network = NetworkPolicy(SHIPPED["ppo"], "ppo")
    pool = Pool(generate("sudden", 900_000 + k) for k in range(20))
    right, wrong, missing = (ratios(kind, pool, network, 4) for kind in KINDS.values())
    assert (wrong != right).any()
    assert (missing != right).any()
    monkeypatch.setattr(network, "most_probable", lambda seen: np.zeros(len(seen), dtype=np.int64))
    right, wrong, missing = (ratios(kind, pool, network, 4) for kind in KINDS.values())
    np.testing.assert_array_equal(wrong, right)
    np.testing.assert_array_equal(missing, right)
