import json

from functions.retraining.snapshot import merged, pairs_of
from shared.contracts import FeedbackPair, encode
from tests.fakes import MemoryObjects

START = 1_800_000_000.0  # 2027-01-15 08:00


def line(question, received_s):
    return encode(FeedbackPair(question=question, answers=("a",), received_s=received_s)) + b"\n"


def snapshot(stores, start_s, end_s):
    return merged(pairs_of(store, start_s, end_s) for store in stores)


def questions(found):
    return [json.loads(row)["question"] for row in found.body.splitlines()]


def test_the_window_takes_its_start_and_leaves_its_end():
    store = MemoryObjects()
    store.put("feedback/aws/20270115T090000-1.jsonl", b"".join(line(str(s), START + s) for s in (-1, 0, 9, 10)))
    assert questions(snapshot([store], START, START + 10)) == ["0", "9"]


def test_a_line_stored_twice_is_trained_on_once():
    stores = [MemoryObjects("aws"), MemoryObjects("azure")]
    for store in stores:
        store.put("feedback/aws/20270115T080001-1.jsonl", line("same", START) + line("same", START))
    assert questions(snapshot(stores, START, START + 10)) == ["same"]


def test_the_same_pairs_give_the_same_bytes_in_whatever_objects_they_lie():
    one, two = MemoryObjects(), MemoryObjects()
    one.put("feedback/aws/20270115T080001-1.jsonl", line("x", START + 1) + line("y", START + 2))
    two.put("feedback/azure/20270115T080001-1.jsonl", line("y", START + 2))
    two.put("feedback/aws/20270115T080002-2.jsonl", b"\n" + line("x", START + 1))
    assert snapshot([one], START, START + 10).body == snapshot([two], START, START + 10).body


def test_objects_written_before_the_window_are_not_even_read():
    class Counting(MemoryObjects):
        read = 0

        def get(self, key):
            self.read += 1
            return super().get(key)

    store = Counting()
    store.put("feedback/aws/20270115T075959-1.jsonl", line("old", START - 5))
    store.put("feedback/aws/20270115T080000-2.jsonl", line("new", START))
    assert questions(snapshot([store], START, START + 10)) == ["new"]
    assert store.read == 1


def test_a_damaged_line_is_named_and_skipped():
    store = MemoryObjects()
    store.put("feedback/aws/20270115T080001-1.jsonl", line("x", START) + b"{oops\n" + line("y", START))
    found = snapshot([store], START, START + 10)
    assert questions(found) == ["x", "y"]
    assert found.skipped[0].startswith("feedback/aws/20270115T080001-1.jsonl, line 2: FeedbackPair: not JSON")
