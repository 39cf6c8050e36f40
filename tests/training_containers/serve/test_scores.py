"""Live quality is a rolling mean per version; unknown quality is absent."""

from __future__ import annotations

from training_containers.serve.scores import RollingScores, Totals


class Hand:
    """A clock moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_version_without_pairs_is_absent_not_zero() -> None:
    assert RollingScores(10, 60).totals() == {}


def test_only_the_last_pairs_count() -> None:
    scores = RollingScores(2, 60)
    for bleu in (0.0, 0.5, 1.0):
        scores.add("m1", bleu, 0.0)

    assert scores.totals() == {"m1": Totals(2, 1.5, 0.0)}


def test_old_pairs_fall_out_until_the_version_is_unknown_again() -> None:
    clock = Hand()
    scores = RollingScores(10, 60, clock)
    scores.add("m1", 1.0, 1.0)
    clock.now = 50
    scores.add("m1", 0.5, 0.0)

    clock.now = 100
    assert scores.totals() == {"m1": Totals(1, 0.5, 0.0)}
    clock.now = 200
    assert scores.totals() == {}


def test_a_forgotten_version_starts_afresh() -> None:
    scores = RollingScores(10, 60)
    scores.add("m1", 1.0, 1.0)
    scores.add("m2", 0.5, 0.0)

    scores.forget("m1")
    scores.forget("never seen")

    assert scores.totals() == {"m2": Totals(1, 0.5, 0.0)}
