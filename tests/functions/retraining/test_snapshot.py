"""What a job is trained on: which pairs are taken, and that no amount of feedback is too much."""

import datetime as dt
import json
import threading

import pytest

from functions.retraining import snapshot as under_test
from functions.retraining.snapshot import Snapshot, Wanted, data_key, snapshot_key, take, taken
from shared.contracts import FeedbackPair, encode
from shared.deadline import Deadline
from shared.errors import UnavailableError
from tests.fakes import MemoryObjects

START = 1_800_000_000.0  # 2027-01-15 08:00


def line(question, received_s, answers=("a",)):
    return encode(FeedbackPair(question=question, answers=answers, received_s=received_s)) + b"\n"


def stamp(at_s):
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y%m%dT%H%M%S}"


def snap(stores, end_s=START + 10, *, start_s=START, own="aws", now_s=None, seconds=60.0, **changes):
    wanted = Wanted(start_s=start_s, end_s=end_s, seen_s=0.0, pairs=1000, bytes=2**20, new=0)._replace(**changes)
    return take(stores, own, "qa-1", wanted, end_s if now_s is None else now_s, Deadline(seconds))


def questions(store):
    return [json.loads(row)["question"] for row in store.get(data_key("qa-1")).splitlines()]


class Counting(MemoryObjects):
    """Counts what it is asked."""

    def __init__(self, name="memory"):
        super().__init__(name)
        self.asked = []

    def get(self, key):
        self.asked.append(key)
        return super().get(key)

    def entries(self, prefix):
        self.asked.append(f"list {prefix}")
        return super().entries(prefix)


def test_the_window_takes_its_start_and_leaves_its_end():
    store = MemoryObjects()
    store.put("feedback/aws/20270115T090000-1.jsonl", b"".join(line(str(s), START + s) for s in (-1, 0, 9, 10)))
    found = snap({"aws": store}, now_s=START + 7200)
    assert questions(store) == ["0", "9"]
    assert (found.pairs, found.skipped, found.left_out) == (2, {"outside the window": 2}, "")


def test_a_line_stored_twice_is_trained_on_once():
    stores = {"aws": MemoryObjects("aws"), "azure": MemoryObjects("azure")}
    for store in stores.values():
        store.put("feedback/aws/20270115T080001-1.jsonl", line("same", START) + line("same", START))
    assert snap(stores).skipped == {"stored twice": 3}
    assert questions(stores["aws"]) == ["same"]


def test_the_pairs_of_all_stores_are_taken_newest_object_first():
    stores = {"aws": MemoryObjects("aws"), "azure": MemoryObjects("azure")}
    for second, cloud in enumerate(("aws", "azure", "aws", "azure")):
        stores[cloud].put(f"feedback/{cloud}/{stamp(START + second)}-x.jsonl", line(str(second), START + second))
    snap(stores, own="azure")
    assert questions(stores["azure"]) == ["3", "2", "1", "0"]


def test_objects_written_before_the_window_are_not_even_read():
    store = Counting()
    store.put("feedback/aws/20270115T075959-1.jsonl", line("old", START - 5))
    store.put("feedback/aws/20270115T080000-2.jsonl", line("new", START))
    snap({"aws": store})
    assert questions(store) == ["new"]
    assert "feedback/aws/20270115T075959-1.jsonl" not in store.asked


def test_a_short_window_is_listed_with_one_request_a_folder_however_long_feedback_is_kept():
    store = Counting()
    for day in range(1, 90):
        at = START - day * 86_400
        store.put(f"feedback/aws/{stamp(at)}-1.jsonl", line(str(day), at))
    snap({"aws": store}, start_s=START - 7200)
    listed = [asked for asked in store.asked if asked.startswith("list")]
    assert listed == ["list feedback/aws/20270115T0", "list feedback/azure/20270115T0"]


def test_damaged_and_blank_lines_are_skipped_and_counted():
    store = MemoryObjects()
    rows = [line("x", START), b"{oops\n", b"\n", line("b", START, ("a", " ")), line(" ", START), line("y", START)]
    store.put("feedback/aws/20270115T080001-1.jsonl", b"".join(rows) + b'{"question":"z","answers":[],"received_s":1}')
    found = snap({"aws": store})
    assert questions(store) == ["x", "y"]
    assert found.skipped == {"damaged": 2, "blank": 2}
    assert found.first_damaged.startswith("feedback/aws/20270115T080001-1.jsonl, line 2: FeedbackPair: not JSON")


def test_an_object_that_expires_or_is_too_large_to_read_ends_nothing(monkeypatch):
    monkeypatch.setattr(under_test, "MOST_BYTES", 500)

    class Expiring(MemoryObjects):
        def get(self, key):
            if "gone" in key:
                del self._objects[key]
            return super().get(key)

    store = Expiring()
    store.put("feedback/aws/20270115T080001-gone.jsonl", line("gone", START))
    store.put("feedback/aws/20270115T080001-big.jsonl", line("q" * 501, START))
    store.put("feedback/aws/20270115T080001-1.jsonl", line("x", START))
    assert snap({"aws": store}).skipped == {"expired": 1, "object too large": 1}
    assert questions(store) == ["x"]


@pytest.mark.parametrize("bound", [{"pairs": 5}, {"bytes": 5 * len(line("00", START))}])
def test_of_more_than_the_bound_the_newest_are_taken(bound):
    store = Counting()
    for n in range(60):
        store.put(f"feedback/aws/{stamp(START + n)}-1.jsonl", line(f"{n:02}", START + n))
    found = snap({"aws": store}, START + 60, **bound)
    assert questions(store) == ["59", "58", "57", "56", "55"]
    assert found.pairs == 5
    assert "are trained on" in found.left_out
    assert sum(not asked.startswith("list") for asked in store.asked) < 30, "older objects were read"


def test_more_objects_than_a_listing_finds_at_once_are_listed_by_shorter_times(monkeypatch):
    monkeypatch.setattr(under_test, "PAGE", 4)
    store = MemoryObjects()
    times = [START - 86_400 * 40, START - 86_400, START - 3600, START - 61, *(START - n for n in range(9))]
    for at in times:
        store.put(f"feedback/aws/{stamp(at)}-1.jsonl", line(str(START - at), at))
    for n in range(6):  # more than a page within a second
        store.put(f"feedback/aws/{stamp(START - 20)}-{n}.jsonl", line(f"second {n}", START - 20))
    snap({"aws": store}, START + 1, start_s=START - 86_400 * 365)
    assert set(questions(store)) == {str(START - at) for at in times} | {f"second {n}" for n in range(6)}
    written = [n for n in questions(store) if not n.startswith("second")]
    assert written == sorted(written, key=float)


def test_what_is_not_read_in_time_is_left_out_and_said():
    release = threading.Event()

    class Slow(MemoryObjects):
        def get(self, key):
            if "slow" in key:
                release.wait(10)
            return super().get(key)

    store = Slow()
    store.put("feedback/aws/20270115T080000-slow.jsonl", line("old", START))
    store.put("feedback/aws/20270115T080001-1.jsonl", line("new", START))
    found = snap({"aws": store}, seconds=0.2)
    with pytest.raises(UnavailableError, match="only 1 labelled pairs could be read in time"):
        snap({"aws": store}, seconds=0.2, new=2)
    release.set()
    assert questions(store) == ["new"]
    assert found.left_out == "there was no time to read more"


def test_another_store_may_fall_silent_at_any_moment_but_not_the_own_one():
    class Falling(MemoryObjects):
        def get(self, key):
            if key.startswith("feedback/") and "080001" in key:
                raise UnavailableError("blob", "connection reset")
            return super().get(key)

    stores = {"aws": MemoryObjects("aws"), "azure": Falling("azure")}
    for cloud, store in stores.items():
        for second in (1, 2):
            store.put(f"feedback/{cloud}/{stamp(START + second)}-1.jsonl", line(f"{cloud} {second}", START))
    found = snap(stores)
    assert sorted(questions(stores["aws"])) == ["aws 1", "aws 2", "azure 2"]
    assert found.without == {"azure": "blob is unavailable: connection reset"}
    with pytest.raises(UnavailableError, match="connection reset"):
        snap(stores, own="azure")


def test_a_large_snapshot_is_written_in_parts_of_whole_lines(monkeypatch):
    monkeypatch.setattr(under_test, "PART", 256)
    sent = []

    class Parts(MemoryObjects):
        def put_part(self, key, number, body):
            sent.append((number, body))
            super().put_part(key, number, body)

    store = Parts()
    store.put("feedback/aws/20270115T080001-1.jsonl", b"".join(line(f"{n:03}", START) for n in range(100)))
    found = snap({"aws": store})
    assert questions(store) == [f"{n:03}" for n in range(100)]
    assert [number for number, _ in sent] == list(range(1, len(sent) + 1))
    assert all(256 <= len(body) < 400 and body.endswith(b"\n") for _, body in sent[:-1])
    assert found.bytes == len(store.get(data_key("qa-1")))


def test_a_snapshot_stays_as_the_first_start_took_it():
    store = MemoryObjects()
    store.put("feedback/aws/20270115T080001-1.jsonl", line("x", START))
    assert taken(store, "qa-1") is None
    first = snap({"aws": store})
    store.put("feedback/aws/20270115T080002-1.jsonl", line("late", START))
    assert snap({"aws": store}) == taken(store, "qa-1") == first
    assert questions(store) == ["x"]


def test_what_is_known_of_a_snapshot_is_written_last_and_read_again_where_it_cannot_be_read():
    store = MemoryObjects()
    store.put(snapshot_key("qa-1"), b"{half")
    assert taken(store, "qa-1") is None
    store.put(snapshot_key("qa-1"), encode(Snapshot(pairs=1, new=1, bytes=2, objects=1, skipped={}, without={})))
    assert taken(store, "qa-1").pairs == 1


def test_with_too_few_new_pairs_nothing_is_written():
    store = MemoryObjects()
    store.put("feedback/aws/20270115T080001-1.jsonl", line("x", START) + line("y", START + 5))
    assert snap({"aws": store}, seen_s=START + 5, new=2).new == 1
    assert [entry.key for entry in store.entries("jobs/")] == []
