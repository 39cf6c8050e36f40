"""Trees that overrule a network: where they are clear, and only there."""

import numpy as np

from benchmarks.policy.headroom import CLEAR, asked, overruled, with_family
from benchmarks.policy.validation import FIRST_SEED, network_of, score, traces_of
from policy.training.ppo.evaluate import ratios
from policy.training.simulator.generators import FAMILIES


def test_trees_that_are_not_clear_leave_the_network_alone():
    alone = score(network_of("ppo"), traces_of("sudden", 4))
    same = overruled(network_of("ppo"), traces_of("sudden", 4), lambda observed: np.full(len(observed), 0.9 * CLEAR))
    assert (same.ratios == alone.ratios).all()
    assert same.times == alone.times


def test_trees_that_find_every_retrain_too_dear_end_at_never():
    held, _ = ratios(traces_of("sudden", 4), "multistream", lambda x: np.zeros(len(x), dtype=np.int64), FIRST_SEED)
    never = overruled(network_of("ppo"), traces_of("sudden", 4), lambda observed: np.full(len(observed), 2.0 * CLEAR))
    assert never.times == 0.0
    assert (never.ratios == held).all()


def test_trees_that_find_every_hold_too_dear_retrain_whenever_they_may():
    eager = overruled(network_of("ppo"), traces_of("stable", 2), lambda observed: np.full(len(observed), -2.0 * CLEAR))
    assert eager.ratios.min() > 1.5
    assert eager.times > 5.0


def test_states_are_asked_about_once_a_life_and_known_their_family():
    seen, dearer = asked("ppo", "seasonal", 3, 2)
    assert seen.shape[0] == dearer.shape[0] == 6
    assert np.isfinite(dearer).all()
    known = with_family(seen, "seasonal")
    assert known.shape[1] == seen.shape[1] + len(FAMILIES)
    assert (known[:, seen.shape[1] :].sum(axis=0) > 0).tolist() == [family == "seasonal" for family in FAMILIES]
