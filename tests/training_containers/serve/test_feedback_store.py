"""Labelled pairs reach the store in shards; a store that is down loses nothing within the bound."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.contracts import FeedbackPair, decode, encode
from shared.errors import UnavailableError
from training_containers.object_store import FolderObjects
from training_containers.serve.feedback_store import SHARD_BYTES, FeedbackWriter, _bounded


class Counted:
    """Counters as plain numbers."""

    def __init__(self) -> None:
        self.stored_pairs = self.failures = self.dropped_pairs = 0

    def stored(self, pairs: int) -> None:
        self.stored_pairs += pairs

    def put_failed(self) -> None:
        self.failures += 1

    def dropped(self, pairs: int) -> None:
        self.dropped_pairs += pairs


class Flaky(FolderObjects):
    """A folder that can be switched off; it also loses answers of writes that did succeed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.down = False
        self.lose_answer = False

    def put(self, key: str, body: bytes) -> None:
        if self.down:
            raise UnavailableError("the store", "switched off")
        super().put(key, body)
        if self.lose_answer:
            raise OSError("connection reset")


@pytest.fixture
def sink(tmp_path: Path) -> Flaky:
    return Flaky(tmp_path / "store")


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def writer(sink: Flaky, counted: Counted) -> Iterator[FeedbackWriter]:
    """Writes only when told to."""
    made = FeedbackWriter(sink, "aws", counted, every_s=3600, every_pairs=1000, max_kept=5, clock=lambda: 1_700_000_000)
    yield made
    sink.down = sink.lose_answer = False
    made.close()


def _pair(i: int) -> FeedbackPair:
    return FeedbackPair(
        question=f"q{i}?", answers=(f"a{i}", "ä"), received_s=float(i), prediction="p", model_version="m1"
    )


def _stored(root: Path) -> list[FeedbackPair]:
    shards = sorted((root / "store").rglob("*.jsonl"))
    return [decode(FeedbackPair, line) for shard in shards for line in shard.read_bytes().splitlines()]


def test_pairs_become_a_shard_named_by_cloud_and_time(writer: FeedbackWriter, tmp_path: Path, counted: Counted) -> None:
    for i in range(3):
        writer.append(_pair(i))

    assert writer.flush()

    (shard,) = (tmp_path / "store").rglob("*.jsonl")
    name = shard.relative_to(tmp_path / "store").as_posix()
    assert re.fullmatch(r"feedback/aws/20231114T221320-[0-9a-f]{32}\.jsonl", name)
    assert _stored(tmp_path) == [_pair(i) for i in range(3)]
    assert (counted.stored_pairs, writer.kept) == (3, 0)


def test_large_pairs_and_many_become_shards_of_bounded_size() -> None:
    large = FeedbackPair(question="q?", answers=("a" * 400_000,), received_s=0.0)
    shards = list(_bounded([large, large, large, *(_pair(i) for i in range(1500))], 1000))
    assert [len(shard) for shard in shards] == [2, 1000, 501]
    assert [pair for shard in shards for pair in shard][3:] == [_pair(i) for i in range(1500)]
    assert all(sum(len(encode(pair)) for pair in shard) <= SHARD_BYTES for shard in shards)


def test_a_shard_is_written_at_once_when_its_size_is_reached(sink: Flaky, counted: Counted) -> None:
    writer = FeedbackWriter(sink, "aws", counted, every_s=3600)
    for _ in range(3):
        writer.append(FeedbackPair(question="q?", answers=("a" * 400_000,), received_s=0.0))
    deadline = time.monotonic() + 10
    while counted.stored_pairs < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert counted.stored_pairs == 3
    writer.close()


def test_a_failed_write_is_kept_and_repeated(
    writer: FeedbackWriter, sink: Flaky, counted: Counted, tmp_path: Path
) -> None:
    sink.down = True
    writer.append(_pair(1))
    assert not writer.flush()
    writer.append(_pair(2))
    assert not writer.flush()
    assert (counted.failures, writer.kept) == (2, 2)

    sink.down = False
    assert writer.flush()

    assert sorted(p.question for p in _stored(tmp_path)) == ["q1?", "q2?"]


def test_a_write_whose_answer_was_lost_is_not_stored_twice(
    writer: FeedbackWriter, sink: Flaky, counted: Counted, tmp_path: Path
) -> None:
    sink.lose_answer = True
    writer.append(_pair(1))
    assert not writer.flush()

    sink.lose_answer = False
    assert writer.flush()

    assert _stored(tmp_path) == [_pair(1)]


def test_the_oldest_pairs_are_given_up_and_counted_when_the_store_stays_down(
    writer: FeedbackWriter, sink: Flaky, counted: Counted, tmp_path: Path
) -> None:
    sink.down = True
    for i in range(8):
        writer.append(_pair(i))
        writer.flush()

    sink.down = False
    assert writer.flush()

    assert counted.dropped_pairs == 3
    assert sorted(p.question for p in _stored(tmp_path)) == [f"q{i}?" for i in range(3, 8)]


def test_many_pairs_are_written_before_the_time_is_up(sink: Flaky, counted: Counted) -> None:
    writer = FeedbackWriter(sink, "azure", counted, every_s=3600, every_pairs=4)
    for i in range(4):
        writer.append(_pair(i))

    until = time.monotonic() + 10
    while counted.stored_pairs < 4:
        assert time.monotonic() < until
        time.sleep(0.005)
    writer.close()


def test_few_pairs_are_written_when_the_time_is_up_and_the_rest_at_the_end(sink: Flaky, counted: Counted) -> None:
    writer = FeedbackWriter(sink, "azure", counted, every_s=0.02, every_pairs=1000)
    writer.append(_pair(1))
    until = time.monotonic() + 10
    while counted.stored_pairs < 1:
        assert time.monotonic() < until
        time.sleep(0.005)

    writer.append(_pair(2))
    writer.close()

    assert counted.stored_pairs == 2


def test_an_unwritable_folder_is_a_failed_write_not_a_crash(tmp_path: Path, counted: Counted) -> None:
    (tmp_path / "file").write_text("not a folder")
    writer = FeedbackWriter(FolderObjects(tmp_path / "file"), "aws", counted, every_s=3600)
    writer.append(_pair(1))

    assert not writer.flush()
    writer.close()
    assert counted.failures >= 1
