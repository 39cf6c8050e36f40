"""The families do what their names say, and the test set is not the training set."""

from __future__ import annotations

import numpy as np
import pytest

from policy.training.generators import (
    CHEAP,
    FAMILIES,
    HELD_OUT,
    LIKE_REAL,
    SHORT,
    USUAL,
    WIDE,
    Spread,
    generate,
    held_out_set,
)
from policy.training.score import plan
from policy.training.trace import validate
from shared.errors import InvalidInputError

ALL = [*FAMILIES, *HELD_OUT]


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("spread", [USUAL, WIDE, CHEAP])
def test_every_trace_is_valid_and_repeatable(family: str, spread: Spread) -> None:
    for seed in range(3):
        trace = generate(family, seed, spread=spread)
        validate(trace, trace.name)
        assert spread.steps[0] <= trace.steps <= spread.steps[1]
        assert max(trace.delays) <= spread.longest_steps
        assert generate(family, seed, spread=spread).sha256() == trace.sha256()
        assert generate(family, seed + 1, spread=spread).sha256() != trace.sha256()


def drop(family: str, seed: int) -> float:
    """How much the first model loses by the end."""
    quality = generate(family, seed).quality[0]
    return float(quality[:5].mean() - quality[-5:].mean())


@pytest.mark.parametrize("family", LIKE_REAL)
def test_a_family_like_the_real_matrices_keeps_its_own_spread(family: str) -> None:
    trace = generate(family, 1, spread=WIDE)
    validate(trace, trace.name)
    assert trace.sha256() == generate(family, 1).sha256() != generate(family, 2).sha256()
    lengths = [generate(family, seed).steps for seed in range(30)]
    assert SHORT.steps[0] <= min(lengths) < max(lengths) <= SHORT.steps[1]


def test_with_turnover_every_model_forgets_and_later_ones_know_less() -> None:
    traces = [generate("turnover", seed) for seed in range(30)]
    forgotten = [t.quality[1, 1] - t.quality[1, -1] for t in traces]
    faded = [np.diag(t.quality)[:4].mean() - np.diag(t.quality)[-4:].mean() for t in traces]
    assert min(forgotten) > 0.05
    assert np.median(forgotten) > 0.3
    assert 0.05 < np.mean(faded) < 0.3


def test_stable_hardly_moves_and_gradual_does() -> None:
    assert np.mean([drop("stable", seed) for seed in range(10)]) < 0.02
    assert np.mean([drop("gradual", seed) for seed in range(10)]) > 0.1


def test_after_a_sudden_change_retraining_too_early_recovers_part() -> None:
    partial = 0
    for seed in range(10):
        fresh = np.diag(generate("sudden", seed).quality)
        partial += int(((np.median(fresh) - fresh) > 0.08).any())
    assert partial >= 6


def test_a_model_of_a_recurring_regime_is_good_again() -> None:
    recovered = 0
    for seed in range(10):
        quality = generate("recurring", seed).quality[0]
        lowest = int(np.argmin(quality))
        recovered += int(quality[lowest:].max() > quality[0] - 0.06 and quality[lowest] < quality[0] - 0.1)
    assert recovered >= 4


def test_a_trace_of_regimes_begins_anywhere_in_one() -> None:
    first = []
    for seed in range(80):
        fell = np.flatnonzero(np.abs(np.diff(generate("recurring", seed).quality[0])) > 0.06)
        first.append(int(fell[0]) + 1 if len(fell) else 240)
    assert min(first) <= 4
    assert np.mean(np.array(first) < 12) > 0.15


def test_data_come_in_at_one_pace_in_all_of_a_trace() -> None:
    several = 0
    for seed in range(20):
        world = FAMILIES["sudden"](np.random.default_rng(seed), 200)
        behind = np.flatnonzero(world.learnt < 1.0)
        begins = behind[world.before[behind] == behind - 1]
        assert len(begins) >= 1
        assert len({round(float(world.learnt[i]), 6) for i in begins}) == 1
        several += len(begins) > 1
    assert several >= 10


def test_a_sudden_change_may_bring_an_old_model_nearer() -> None:
    nearer = 0
    for seed in range(40):
        quality = generate("sudden", seed).quality
        for j in range(3, len(quality)):
            nearer += bool(
                quality[0, j] - quality[0, j - 1] > 0.05 and quality[j - 2, j] - quality[j - 2, j - 1] < -0.05
            )
    assert nearer >= 3


def test_a_walk_in_more_than_one_dimension_comes_back_less() -> None:
    # on a line every three points have one between the two others: the longest way is the sum of the two others
    bent = []
    for seed in range(40):
        far = FAMILIES["randwalk"](np.random.default_rng(seed), 121).distance
        ways = np.sort([far[0, 60], far[60, 120], far[0, 120]])
        bent.append(ways[0] + ways[1] - ways[2] > 1e-9)
    assert 0.55 < np.mean(bent) < 0.95


def test_the_optimum_retrains_where_it_pays() -> None:
    retrains = {
        family: np.mean([sum(a > 0 for a in plan(generate(family, seed)).decisions) for seed in range(8)])
        for family in ("stable", "sudden", "recurring")
    }
    assert retrains["stable"] < retrains["sudden"]
    assert retrains["stable"] < retrains["recurring"]


def test_the_held_out_set_has_nine_families_or_more_and_its_own_seeds() -> None:
    traces = held_out_set(per_family=1)
    assert [trace.name.split("-")[0] for trace in traces] == ALL


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="weekly"):
        generate("weekly", 0)
