"""Batches hold every example once, in an order of seed and epoch; of like length where that is asked for."""

import pytest

from training_containers.finetune.loop.batches import Batches

LENGTHS = [(7 * i) % 50 for i in range(103)]


def batches(*, like_length: bool, seed: int = 1, epoch: int = 0) -> list[list[int]]:
    made = Batches(LENGTHS, 8, seed, like_length=like_length)
    made.epoch = epoch
    return list(made)


@pytest.mark.parametrize("like_length", [True, False])
def test_every_example_once_in_an_order_of_seed_and_epoch(like_length: bool) -> None:
    first = batches(like_length=like_length)

    assert len(first) == 13
    assert sorted(i for batch in first for i in batch) == list(range(103))
    assert batches(like_length=like_length) == first
    assert batches(like_length=like_length, seed=2) != first
    assert batches(like_length=like_length, epoch=1) != first


def test_examples_are_of_like_length_only_where_that_is_asked_for() -> None:
    def widest(made: list[list[int]]) -> int:
        return max(max(LENGTHS[i] for i in batch) - min(LENGTHS[i] for i in batch) for batch in made)

    assert widest(batches(like_length=True)) <= 5
    assert widest(batches(like_length=False)) > 25
