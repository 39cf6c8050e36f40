"""A tick's documents: read together, once, and never believed against the store."""

import pytest

from functions.scheduling.cached_documents import Recall
from functions.scheduling.tick import tick
from shared.errors import ConflictError
from tests.fakes import MemoryDocuments


class Counted(MemoryDocuments):
    def __init__(self):
        super().__init__()
        self.calls = []

    def get(self, kind, key):
        self.calls.append(("get", kind))
        return super().get(kind, key)

    def get_many(self, keys):
        keys = list(keys)
        self.calls.append(("get_many", *sorted(kind for kind, _ in keys)))
        return super().get_many(keys)

    def put(self, kind, key, body, **condition):
        self.calls.append(("put", kind))
        return super().put(kind, key, body, **condition)

    def query(self, kind, **window):
        self.calls.append(("query", kind))
        return super().query(kind, **window)


def test_what_was_named_is_read_together_and_what_was_written_is_not_read_again():
    store = Counted()
    store.put("routes", "qa", b"old")
    recall = Recall(store, [("routes", "qa"), ("tally", "qa")])
    store.calls.clear()
    etag = recall.get("routes", "qa").etag
    assert recall.get("tally", "qa") is None
    new = recall.put("routes", "qa", b"new", if_etag=etag)
    assert recall.get("routes", "qa") == (b"new", new)
    assert store.calls == [("get_many", "routes", "tally"), ("put", "routes")]


def test_after_losing_to_somebody_else_it_reads_theirs():
    store = MemoryDocuments()
    recall = Recall(store, [("decision", "d")])
    assert recall.get("decision", "d") is None
    store.put("decision", "d", b"theirs")
    with pytest.raises(ConflictError):
        recall.put("decision", "d", b"ours", if_absent=True)
    assert recall.get("decision", "d").body == b"theirs"


def test_everything_else_is_always_read_from_the_store():
    store = MemoryDocuments()
    recall = Recall(store, [("routes", "qa")])
    store.put("job", "j", b"1")
    assert recall.get("job", "j").body == b"1"
    store.put("job", "j", b"2")
    assert recall.get("job", "j").body == b"2"


def test_a_quiet_tick_asks_its_own_table_five_times(world, now):
    store = Counted()
    world.clouds = {"aws": world.clouds["aws"]._replace(documents=store)}
    tick(world.deps(mode="watch"), now)
    assert store.calls == [
        ("get_many", "control", "decision", "routes", "tally"),
        ("query", "job"),
        ("put", "routes"),
        ("query", "decision"),
        ("put", "decision"),
    ]
