"""The families do what their names say, and the test set is not the training set."""

from __future__ import annotations

import numpy as np
import pytest

from policy.training.simulator.cost import solve
from policy.training.simulator.generators import (
    APART,
    CHEAP,
    FAMILIES,
    HELD_OUT,
    USUAL,
    WIDE,
    Spread,
    distances,
    generate,
    held_out_set,
)
from policy.training.simulator.trace import validate
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


@pytest.mark.parametrize("family", APART)
def test_a_family_that_is_made_otherwise_keeps_its_own_spread(family: str) -> None:
    trace = generate(family, 1, spread=WIDE)
    validate(trace, trace.name)
    assert trace.sha256() == generate(family, 1).sha256() != generate(family, 2).sha256()
    lengths = [generate(family, seed).steps for seed in range(30)]
    low, high = APART[family][1].steps
    assert low <= min(lengths) < max(lengths) <= high


def test_with_turnover_every_model_forgets_and_later_ones_know_less() -> None:
    traces = [generate("turnover", seed) for seed in range(30)]
    forgotten = [t.quality[1, 1] - t.quality[1, -1] for t in traces]
    faded = [np.diag(t.quality)[:4].mean() - np.diag(t.quality)[-4:].mean() for t in traces]
    assert min(forgotten) > 0.05
    assert np.median(forgotten) > 0.3
    assert 0.05 < np.mean(faded) < 0.3


def test_in_the_textbook_a_model_only_gets_worse_and_a_new_one_is_as_good_as_the_first() -> None:
    traces = [generate("textbook", seed) for seed in range(60)]
    smooth = [np.convolve(t.quality[0], np.ones(5) / 5, "valid") for t in traces]
    assert max(float(np.diff(q).max()) for q in smooth) < 0.02  # nothing comes back by itself
    assert max(abs(float(np.diag(t.quality).mean()) - float(t.quality[0, 0])) for t in traces) < 0.25
    lost = np.array([(t.quality[0, 0] - t.quality[0, -1]) / t.quality[0, 0] for t in traces])
    assert (lost > 0.95).any(), "a model may lose all it was worth"
    assert (lost < 0.2).any(), "or hardly anything"


def test_where_retrains_take_alike_both_clouds_are_often_quick_and_never_far_apart() -> None:
    delays = np.array([generate("textbook", seed).delays for seed in range(200)])
    apart = delays.max(axis=1) / delays.min(axis=1)
    assert apart.max() <= 2.0  # 1 and 2 steps, rounded
    assert np.mean((delays == 1).all(axis=1)) > 0.05, "drawn on their own, one in 256"
    assert delays.max() > 12


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


def test_what_a_model_knows_is_the_mean_of_its_data() -> None:
    position = np.zeros((12, 3))
    position[5:, 1] = 2.0
    far = distances(position, 4)
    assert far[4, 3] == 0.0 and far[4, 5] == 2.0
    np.testing.assert_allclose(far[4:10, 11], [2.0, 1.5, 1.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(far[6, 4], 1.0)  # half the data of model 6 are of before
    np.testing.assert_array_equal(distances(position, 1)[:, 11], np.where(np.arange(12) < 5, 2.0, 0.0))


def test_only_a_regime_is_learnt_at_once() -> None:
    partly = {"sudden": 0, "recurring": 0}
    for family in partly:
        for seed in range(20):
            quality = generate(family, seed).quality
            jump = int(np.argmax(np.diag(quality)[:-2] - np.diag(quality, 1)[:-1])) + 1
            before, after = quality[jump - 1, jump + 1], quality[min(jump + 13, len(quality) - 1), -1]
            partly[family] += bool(after - quality[jump, jump + 1] > 0.5 * abs(after - before) > 0.04)
    assert partly["sudden"] >= 8
    assert partly["recurring"] <= 3


def test_what_questions_are_worth_by_chance_fades_slowly() -> None:
    following, later = [], []
    for seed in range(20):
        worth = generate("stable", seed, steps=200).quality[0].astype(np.float64)
        worth -= worth.mean()
        following.append((worth[1:] * worth[:-1]).mean() / worth.var())
        later.append((worth[15:] * worth[:-15]).mean() / worth.var())
    assert 0.65 < np.median(following) < 0.95
    assert np.median(later) < 0.4


def test_in_a_flickering_world_quality_comes_and_goes_and_no_model_keeps_up() -> None:
    moved = {}
    for flicker in (0.0, 0.3):
        traces = [generate("stable", seed, flicker=flicker) for seed in range(20)]
        moved[flicker] = np.median([np.diff(t.quality[0]).std() for t in traces])
        news = [np.nanmean(np.diag(t.quality, 5)) - np.nanmean(t.quality[0, 5:]) for t in traces]
        assert abs(np.mean(news)) < 0.03, "a new model is no better"
    assert moved[0.3] > 4.0 * moved[0.0]


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
    back = {}
    for dimensions in (1, 8):
        walks = [FAMILIES["randwalk"](np.random.default_rng(seed), 200, dimensions) for seed in range(60)]
        far = [np.linalg.norm(walk - walk[0], axis=1) for walk in walks]
        back[dimensions] = np.mean([d[100:].min() < 0.25 * d[:100].max() for d in far])
    assert back[1] > 0.4
    assert back[8] < 0.1


def test_the_optimum_retrains_where_it_pays() -> None:
    retrains = {
        family: np.mean([sum(a > 0 for a in solve(generate(family, seed)).decisions) for seed in range(8)])
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
