"""A finished model's way to instances that follow the release document: crashes, failures, a person in between."""

import contextlib
import random

import pytest

from functions.retraining import copying
from functions.retraining.start import start_training
from functions.scheduling.tick import tick, training_finished
from policy.decide import load_policy
from shared.adapters.released import ReleasedHost
from shared.contracts import JobStatus, Release, decode, encode
from shared.errors import UnavailableError
from shared.releases import release_key, rolled_back
from tests.functions.conftest import CrashError, Fuse, with_fleets

JOB = "qa-20270115t080000"
CLOUDS = ("aws", "azure")


@pytest.fixture
def clock(now):
    return [now]


@pytest.fixture
def fresh(world, now, clock, artifact, monkeypatch):
    """A function: a world whose job has just trained a better model, of several parts."""
    monkeypatch.setattr(copying, "PART_BYTES", 8)

    def make(**changes):
        clock[0] = now
        made = with_fleets(world, lambda: clock[0])
        made.policy, made.parallel = load_policy("never"), False
        tick(made.deps(), now - 60)
        assert start_training(made.deps(), made.message(), now) == "started"
        made.training().finish(JOB, artifact=artifact(JOB, **changes), started_s=now, finished_s=now + 10)
        return made

    return make


@pytest.fixture
def slots(now, clock):
    """A function: so many ticks, one a slot."""

    def run(world, first, last):
        for slot in range(first, last + 1):
            clock[0] = now + 60 * slot
            tick(world.deps(), clock[0])

    return run


def record(world):
    return world.state().job(JOB).record


def document(world, cloud):
    return decode(Release, world.clouds[cloud].objects.get(release_key("qa")))


def test_a_better_model_is_copied_named_and_loaded_on_both_clouds(fresh, now, clock):
    world = fresh()
    clock[0] = now + 60
    found = training_finished(world.deps(), JOB, now + 60)
    assert found.status is JobStatus.LIVE
    for cloud in CLOUDS:
        assert world.serving(cloud) == found.model_version == document(world, cloud).of("stable")
        assert document(world, cloud).revision == 1


@pytest.mark.slow
def test_wherever_a_run_dies_the_next_ones_bring_the_model_live(fresh, slots, now, clock):
    crashes = 0
    for after in (False, True):
        for calls in range(300):
            world, fuse = fresh(), Fuse(calls, after)
            clock[0] = now + 60
            try:
                training_finished(world.deps("aws", fuse.clouds(world)), JOB, now + 60)
            except CrashError:
                slots(world, 2, 3)
            assert record(world).status is JobStatus.LIVE, (calls, after)
            for cloud in CLOUDS:
                assert world.serving(cloud) == record(world).model_version
                assert document(world, cloud).revision == 1, "it is released once"
            if not fuse.blown:
                break
            crashes += 1
    assert crashes >= 100, "the sweep must reach every part of every copy"


@pytest.mark.slow
def test_several_crashes_and_outages_in_a_row_end_the_same_way(fresh, slots, now, clock):
    rng = random.Random(5)
    for _ in range(30):
        world = fresh()
        for slot in range(1, rng.randint(3, 6)):
            clock[0] = now + 60 * slot
            fuse = Fuse(rng.randrange(70), rng.random() < 0.5)
            down = rng.choice((*CLOUDS, None))
            clouds = fuse.clouds(world)
            if down is not None and rng.random() < 0.5:
                clouds[down] = clouds[down]._replace(objects=Down(), host=Down())
            with contextlib.suppress(CrashError):
                tick(world.deps("aws", clouds), clock[0])
        slots(world, 6, 9)
        assert record(world).status is JobStatus.LIVE
        assert {world.serving(cloud) for cloud in CLOUDS} == {record(world).model_version}


class Down:
    """A service that does not answer."""

    def __getattr__(self, name):
        raise UnavailableError("store", "connection refused")


def test_a_cloud_that_takes_nothing_does_not_stop_the_own_one(fresh, slots):
    world = fresh()
    azure = world.clouds["azure"]
    world.clouds["azure"] = azure._replace(objects=Down(), host=azure.host)
    slots(world, 1, 2)
    assert world.serving("aws") == record(world).model_version
    assert record(world).status is JobStatus.ACCEPTED
    assert "connection refused" in record(world).waits["azure"]
    world.clouds["azure"] = azure
    slots(world, 3, 3)
    assert record(world).status is JobStatus.LIVE and world.serving("azure") == world.serving("aws")


def test_a_copy_too_large_for_one_run_goes_on_in_the_next(fresh, slots, monkeypatch):
    world, real = fresh(), copying._part
    sent = []

    def part(source, key, start, length):
        sent.append((key, start))
        if len(sent) % 3 == 0:
            monkeypatch.setattr(copying, "RESERVE_S", 1e9)  # the time is over
        return real(source, key, start, length)

    monkeypatch.setattr(copying, "_part", part)
    monkeypatch.setattr(copying, "AT_ONCE", 1)
    for slot in range(1, 9):
        monkeypatch.setattr(copying, "RESERVE_S", 5.0)
        slots(world, slot, slot)
        if record(world).status is JobStatus.LIVE:
            break
        assert "still to be copied" in record(world).waits["azure"]
        assert world.serving("aws") == record(world).model_version, "its own cloud does not wait for the other"
        assert world.serving("azure") == "base"
    assert record(world).status is JobStatus.LIVE and slot >= 2
    assert len(sent) == len(set(sent)), "no part is sent twice"


def test_damaged_content_is_found_by_those_who_load_it_and_ends_the_job_in_their_words(fresh, slots):
    world = fresh(files={"model.safetensors": "0" * 64})
    azure = world.clouds["azure"]
    world.clouds["azure"] = azure._replace(objects=Down())
    slots(world, 1, 3)
    assert record(world).status is JobStatus.FAILED
    assert "model.safetensors: sha256 differs" in record(world).reason
    assert world.serving("aws") == "base"


def test_where_both_clouds_were_asked_each_says_why_and_goes_back(fresh, slots, artifact, now, clock):
    world = fresh()
    slots(world, 1, 1)
    good = record(world).model_version
    second = "qa-20270115t081000"
    clock[0] = now + 600
    message = world.message(job_id=second, slot_s=now + 600, parent=good)
    world.label("aws", 100, 10, received_s=now + 500 - 100)
    assert start_training(world.deps(), message, now + 600) == "started"
    broken = artifact(second, parent_version=good, files={"model.safetensors": "0" * 64})
    world.training().finish(second, artifact=broken, started_s=now + 600, finished_s=now + 610)
    slots(world, 11, 14)
    ended = world.state().job(second).record
    assert ended.status is JobStatus.FAILED
    for cloud in CLOUDS:
        assert f"{cloud} refused it: 2 of 2 instances cannot load" in ended.reason
        assert world.serving(cloud) == document(world, cloud).of("stable") == good
        assert document(world, cloud).revision == 3, "asked once, taken back once"


def test_a_rollback_by_a_person_is_not_undone(fresh, slots, clock):
    world = fresh()
    for cloud in CLOUDS:  # something was released before
        objects = world.clouds[cloud].objects
        objects.put("models/base/manifest.json", b"{}")
        ReleasedHost("qa", world.fleets[cloud], objects, lambda: clock[0] - 600).deploy("base")
    world.fleets["azure"].slow = {"one", "two"}
    slots(world, 1, 1)
    version = record(world).model_version
    assert record(world).status is JobStatus.ACCEPTED and world.serving("aws") == version
    clock[0] += 20
    for cloud in CLOUDS:
        back = rolled_back(document(world, cloud), clock[0], "by anna: rude answers")
        world.clouds[cloud].objects.put(release_key("qa"), encode(back))
    slots(world, 2, 6)
    assert record(world).status is JobStatus.STOPPED
    assert "by anna: rude answers" in record(world).reason
    for cloud in CLOUDS:
        assert world.serving(cloud) == document(world, cloud).of("stable") == "base"


def test_what_a_person_releases_before_the_model_is_named_stays(fresh, slots, clock, a_manifest, now):
    world = fresh()
    azure = world.clouds["azure"]
    world.clouds["azure"] = azure._replace(objects=Down())
    slots(world, 1, 1)
    clock[0] += 20
    azure.objects.put("models/hotfix/manifest.json", encode(a_manifest(model_version="hotfix")))
    ReleasedHost("qa", world.fleets["azure"], azure.objects, lambda: clock[0]).deploy("hotfix")
    world.clouds["azure"] = azure
    slots(world, 2, 5)
    assert record(world).status is JobStatus.STOPPED and "taken back on azure" in record(world).reason
    assert world.serving("azure") == "hotfix"
