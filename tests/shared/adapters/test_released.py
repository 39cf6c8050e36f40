"""A release over two simulated instances: in force when they have loaded it, taken back when they cannot."""

import msgspec
import pytest

from shared.adapters.released import PATIENCE_S, ReleasedHost
from shared.contracts import InstanceStatus, Release, decode, encode
from shared.errors import ConflictError, ModelError, RefusedError, UnavailableError
from shared.releases import instance_key, release_key, rolled_back
from shared.values import HostState
from tests.fakes import MemoryFleet, MemoryObjects

KEY = release_key("qa")
RUBBISH = {"no JSON": b"{oops", "nested": b"[" * 100_000, "newer": b'{"version": 99}', "no UTF-8": b"\xff"}


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def objects(clock, a_manifest):
    """A store in which the models m1, m2 and m3 lie."""
    made = MemoryObjects("aws", clock)
    for version in ("m1", "m2", "m3"):
        made.put(f"models/{version}/manifest.json", encode(a_manifest(model_version=version)))
    return made


@pytest.fixture
def fleet(objects, clock):
    return MemoryFleet(objects, clock)


@pytest.fixture
def host(objects, fleet, clock):
    return ReleasedHost("qa", fleet, objects, clock)


def document(objects):
    return decode(Release, objects.get(KEY))


def roles(objects):
    return {one.role: one.model_version for one in document(objects).versions}


def test_what_the_instances_answer_with_serves_before_anything_is_released(host):
    assert host.state() == HostState("base", "http://fleet")


def test_a_release_is_in_force_once_every_instance_has_loaded_it(host, fleet, objects):
    fleet.slow = {"two"}
    host.deploy("m1")
    assert roles(objects) == {"stable": "m1"}
    state = host.state()
    assert (state.version, state.updating, state.healthy) == ("base", True, True)
    host.deploy("m1")
    assert document(objects).revision == 1, "asking again writes nothing"
    fleet.slow.clear()
    state = host.state()
    assert (state.version, state.updating, state.reason) == ("m1", False, "")
    assert state.release == document(objects)
    host.deploy("m2")
    assert roles(objects) == {"stable": "m2", "previous": "m1"}
    assert document(objects).revision == 2
    assert host.state().version == "m2"


def test_what_is_not_there_whole_is_not_released(host, objects):
    objects.put("models/m9/model.safetensors", b"weights")
    objects.put("models/m9/manifest.json.tmp", b"{}")
    with pytest.raises(RefusedError, match=r"models/m9/manifest\.json is not there"):
        host.deploy("m9")
    assert not list(objects.entries("release/"))


def test_what_no_instance_can_load_is_taken_back_and_said_in_their_words(host, fleet, objects, clock):
    host.deploy("m1")
    host.state()
    fleet.cannot = {(name, "m2"): f"{name}: sha256 differs" for name in fleet.instances}
    host.deploy("m2")
    state = host.state()
    assert (state.version, state.updating, state.healthy) == ("m1", False, True)
    assert "cannot load m2: one: sha256 differs" in state.reason
    clock.now += 1
    with pytest.raises(ModelError, match="2 of 2 instances cannot load m2: instance one: one: sha256 differs"):
        host.deploy("m2")
    assert roles(objects) == {"stable": "m1"}, "what failed is not kept loaded"
    assert document(objects).revision == 3
    assert "sha256 differs" in document(objects).reason
    assert host.state().version == "m1"


def test_the_very_first_release_has_nothing_to_go_back_to(host, fleet, objects):
    fleet.cannot = {(name, "m1"): "too large" for name in fleet.instances}
    host.deploy("m1")
    host.state()
    with pytest.raises(ModelError, match="too large"):
        host.deploy("m1")
    assert roles(objects) == {"stable": "m1"}


def test_one_instance_of_several_that_cannot_load_it_has_time_to_recover(host, fleet, objects, clock):
    host.deploy("m1")
    host.state()
    fleet.cannot = {("two", "m2"): "disk full"}
    fleet.slow = {"one"}
    host.deploy("m2")
    host.state()
    host.deploy("m2")
    assert roles(objects)["stable"] == "m2", "the other one is still loading it"
    fleet.slow.clear()
    clock.now += PATIENCE_S - 1
    host.state()
    host.deploy("m2")
    assert roles(objects)["stable"] == "m2"
    clock.now += 1
    host.state()
    with pytest.raises(RefusedError, match="1 of 2 instances cannot load m2: instance two: disk full"):
        host.deploy("m2")
    assert roles(objects) == {"stable": "m1"}


def test_an_instance_that_tells_nothing_any_more_is_gone(host, fleet, objects, clock):
    host.deploy("m1")
    assert host.state().version == "m1"
    fleet.instances = []
    clock.now += 61
    state = host.state()
    assert (state.version, state.healthy, state.updating) == (None, False, True)
    assert "no instance has told its state" in state.reason
    host.deploy("m2")
    fleet.instances = ["three"]
    assert host.state().version == "m2", "one that comes starts from the document"


def test_a_broken_endpoint_is_told_in_its_managements_words(host, fleet):
    fleet.managed = HostState(None, "u", healthy=False, reason="SageMaker endpoint x is Failed: no machine")
    fleet.slow = {"one", "two"}
    host.deploy("m1")
    state = host.state()
    assert (state.healthy, state.updating, state.reason) == (False, False, fleet.managed.reason)
    fleet.managed = fleet.managed._replace(updating=True)
    assert host.state().updating, "it is being mended"


@pytest.mark.parametrize("raw", RUBBISH.values(), ids=list(RUBBISH))
def test_a_status_that_cannot_be_read_hides_nobody_elses(host, fleet, objects, raw):
    objects.put(instance_key("qa", "odd"), raw)
    assert host.state().version == "base"
    fleet.instances = []
    for name in ("one", "two"):
        objects.put(instance_key("qa", name), raw)
    with pytest.raises(UnavailableError, match="no instance's status can be read"):
        host.state()


@pytest.mark.parametrize("raw", RUBBISH.values(), ids=list(RUBBISH))
def test_a_document_that_cannot_be_read_is_not_overwritten(host, objects, raw):
    objects.put(KEY, raw)
    for call in (host.state, lambda: host.deploy("m1")):
        with pytest.raises(UnavailableError, match=r"release document release/qa\.json"):
            call()
    assert objects.get(KEY) == raw


class Losing(MemoryObjects):
    """Does a conditional write, or somebody else's, and answers with an error."""

    error: Exception = UnavailableError("S3", "503")
    theirs: bytes | None = None
    failing = 1

    def put_tagged(self, key, body, *, if_etag):
        if not self.failing:
            return super().put_tagged(key, body, if_etag=if_etag)
        self.failing -= 1
        super().put_tagged(key, self.theirs or body, if_etag=if_etag)
        raise self.error


@pytest.mark.parametrize("error", [UnavailableError("S3", "503"), ConflictError("412")])
def test_a_write_whose_answer_was_lost_is_known_for_ones_own(objects, fleet, clock, error):
    objects.__class__ = Losing
    objects.error = error
    ReleasedHost("qa", fleet, objects, clock).deploy("m1")
    assert document(objects).revision == 1 and roles(objects) == {"stable": "m1"}


def test_of_two_who_release_at_once_both_are_there_one_after_the_other(host, objects, clock):
    host.deploy("m1")
    theirs = msgspec.structs.replace(rolled_back_to(objects, "m2"), reason="by anna")
    objects.__class__ = Losing
    objects.error, objects.theirs = ConflictError("412"), encode(theirs)
    host.deploy("m3")
    assert roles(objects) == {"stable": "m3", "previous": "m2"}
    assert document(objects).revision == 3


def rolled_back_to(objects, version):
    before = document(objects)
    versions = (msgspec.structs.replace(before.versions[0], model_version=version),)
    return msgspec.structs.replace(before, revision=before.revision + 1, versions=versions)


def test_who_never_gets_a_word_in_tries_again_later(host, objects):
    host.deploy("m1")
    other = encode(rolled_back_to(objects, "m2"))
    objects.__class__ = Losing
    objects.error, objects.theirs, objects.failing = ConflictError("412"), other, 9
    with pytest.raises(UnavailableError, match="others change it all the time"):
        host.deploy("m3")


def test_a_rollback_is_followed_like_any_release(host, objects, clock):
    for version in ("m1", "m2"):
        host.deploy(version)
        host.state()
    back = rolled_back(document(objects), clock.now, "by anna: wrong answers")
    objects.put(KEY, encode(back))
    state = host.state()
    assert (state.version, state.release.of("previous")) == ("m1", "m2")


def test_old_statuses_are_not_even_read(host, objects, clock):
    old = InstanceStatus(service="qa", cloud="aws", instance="old", told_s=clock.now, active="m0")
    for number in range(3):
        objects.put(instance_key("qa", f"old-{number}"), encode(old))
    clock.now += 3600
    read, get = [], objects.get
    objects.get = lambda key: read.append(key) or get(key)
    host.state()
    assert not [key for key in read if "old" in key]
