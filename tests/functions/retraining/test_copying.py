"""A model on its way between clouds: in bounded parts, over as many runs as it takes, whole or not there."""

import hashlib
import threading
import time

import pytest

from functions.clouds import Guard
from functions.retraining import copying
from functions.retraining.copying import AT_ONCE, copy_model
from shared.contracts import encode
from shared.deadline import Deadline
from shared.errors import ModelError, NotFoundError, UnavailableError
from tests.fakes import MemoryObjects

REAL_PART, PART = copying.PART_BYTES, 100
BIG = bytes(range(256)) * 4  # eleven parts
FILES = {"config.json": b"{}", "model.safetensors": BIG, "empty.txt": b"", "int8/model.bin": b"x" * PART}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(copying, "PART_BYTES", PART)


class Counted(MemoryObjects):
    """Writes down its calls; `fails_at` counts down to one that fails."""

    def __init__(self, name):
        super().__init__(name)
        self.calls, self.fails_at, self.largest = [], -1, 0

    def _note(self, what, key, size=0):
        self.calls.append((what, key))
        self.largest = max(self.largest, size)
        self.fails_at -= 1
        if self.fails_at == 0:
            raise UnavailableError("store", "planted by the test")

    def get_range(self, key, start, length):
        self._note("get_range", key, length)
        return super().get_range(key, start, length)

    def put(self, key, body):
        self._note("put", key, len(body))
        super().put(key, body)

    def put_part(self, key, number, body):
        self._note("put_part", key, len(body))
        super().put_part(key, number, body)

    def finish_parts(self, key, count):
        self._note("finish_parts", key)
        super().finish_parts(key, count)

    def copy(self, source_key, key):
        self._note("copy", key)
        MemoryObjects.put(self, key, self.get(source_key))


class Ending(Deadline):
    """Enough time for so many looks at the clock."""

    def __init__(self, looks):
        super().__init__(1.0)
        self.looks = looks

    def left(self):
        self.looks -= 1
        return 60.0 if self.looks >= 0 else 1.0


@pytest.fixture
def manifest(a_manifest):
    return encode(a_manifest(files={name: hashlib.sha256(body).hexdigest() for name, body in FILES.items()}))


@pytest.fixture
def source(manifest):
    made = Counted("source")
    for name, body in {**FILES, "manifest.json": manifest, "left over.tmp": b"?"}.items():
        MemoryObjects.put(made, f"jobs/qa-1/model/{name}", body)
    return made


def run(source, target, looks=10**6):
    return copy_model(source, "jobs/qa-1/model/", target, "m1", Ending(looks))


def whole(target, manifest):
    found = {entry.key.removeprefix("models/m1/"): target.get(entry.key) for entry in target.entries("models/m1/")}
    return found == {**FILES, "manifest.json": manifest}


def test_a_model_arrives_whole_and_in_parts_of_bounded_size(source, manifest):
    target = Counted("target")
    assert run(source, target) == ""
    assert whole(target, manifest), "and without what the manifest does not list"
    assert source.largest == PART
    assert target.calls[-1] == ("put", "models/m1/manifest.json"), "the manifest comes last"
    calls = len(target.calls)
    assert run(source, target) == "" and len(target.calls) == calls, "what is there is not sent again"


def test_a_part_is_what_both_clouds_take_and_little_memory():
    assert REAL_PART == 8_388_608


def test_inside_a_cloud_nothing_passes_through_here(source, manifest):
    assert run(source, source) == ""
    assert whole(source, manifest)
    assert {what for what, _ in source.calls} == {"copy", "put"}


def test_a_copy_goes_on_where_the_last_run_stopped_however_short_the_runs_are(source, manifest):
    target, lefts = Counted("target"), []
    while left := run(source, target, looks=2):
        lefts.append(left)
        assert ("put", "models/m1/manifest.json") not in target.calls
        assert len(lefts) < 20
    assert whole(target, manifest)
    assert len(lefts) >= 4
    assert len([call for call in target.calls if call[0] == "put_part"]) == 11, "no part is sent twice"
    assert all("MB of it are still to be copied" in left for left in lefts)
    assert run(source, Counted("t"), looks=0) == "1 MB of it are still to be copied"


def test_a_few_parts_travel_at_once_and_the_first_begins_the_upload_alone(source, manifest):
    class Busy(Counted):
        """Remembers how many parts of a key were on their way together."""

        def __init__(self, name):
            super().__init__(name)
            self.now, self.together, self.lock = 0, [], threading.Lock()

        def put_part(self, key, number, body):
            with self.lock:
                self.now += 1
                self.together.append((number, self.now))
            time.sleep(0.02)
            super().put_part(key, number, body)
            with self.lock:
                self.now -= 1

    target = Busy("target")
    assert run(source, target) == "" and whole(target, manifest)
    assert all(together == 1 for number, together in target.together if number == 1)
    assert 1 < max(together for _, together in target.together) <= AT_ONCE


@pytest.mark.parametrize("store", ["source", "target"])
def test_a_call_that_fails_loses_nothing_but_itself(source, manifest, store):
    for call in range(1, 40):
        target = Counted("target")
        failing = {"source": source, "target": target}[store]
        failing.fails_at = call
        try:
            run(source, target)
        except UnavailableError:
            assert not whole(target, manifest)
            assert run(source, target) == ""
            assert whole(target, manifest)
        else:
            failing.fails_at = -1
            assert call > 10
            return
    pytest.fail("it never ran to its end")


def test_another_model_of_the_same_name_is_not_overwritten(source, a_manifest):
    target = Counted("target")
    MemoryObjects.put(target, "models/m1/manifest.json", encode(a_manifest(trace_id="f" * 32)))
    with pytest.raises(ModelError, match="another model lies in memory://target/models/m1/"):
        run(source, target)
    assert target.calls == []


def test_what_is_not_whole_at_its_source_is_not_copied(source):
    del source._objects["jobs/qa-1/model/config.json"]
    target = Counted("target")
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        run(source, target)
    with pytest.raises(NotFoundError):
        copy_model(source, "jobs/none/", target, "m1", Ending(9))
    assert target.calls == []


def test_a_file_that_ends_early_is_not_taken_for_whole(source):
    source.get_range = lambda key, start, length: b"short"
    with pytest.raises(UnavailableError, match="5 of 2 bytes"):
        run(source, Counted("target"))


def test_a_file_of_another_size_is_sent_again(source, manifest):
    target = Counted("target")
    MemoryObjects.put(target, "models/m1/config.json", b"half")
    assert run(source, target) == ""
    assert whole(target, manifest)


def test_each_part_has_a_runs_limits_for_itself(source, manifest):
    """Ten seconds of parts within a guard that allows a call one."""
    clock = [0.0]
    deadline = Deadline(30.0, lambda: clock[0])
    guard = Guard("aws", deadline, 1.0, 1.0)
    target = Counted("target")

    class Guarded:
        def __getattr__(self, name):
            def call(*args):
                clock[0] += 0.9
                return guard.call("objects", name, lambda: getattr(target, name)(*args))

            return call

    assert copy_model(source, "jobs/qa-1/model/", Guarded(), "m1", deadline) == ""
    assert clock[0] > 10 and whole(target, manifest)
