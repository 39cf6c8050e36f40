"""A year of jobs: a tick reads only the recent ones, and its counters still count them all."""

import contextlib
import dataclasses

import msgspec
import pytest

from functions.retraining.history import job_history, look_back_s, moved_on
from functions.scheduling.read import read
from functions.scheduling.tick import tick
from policy.decide import load_policy
from shared.contracts import JobRecord, JobStatus, job_id_for
from shared.errors import ConflictError
from tests.fakes import memory_cloud

DAY = 86_400.0


def history(deps, now_s):
    return job_history(read(deps, now_s, observe=False).clouds)


def pass_old_jobs(deps, reading, now_s):
    """Write the totals of an earlier reading; whoever is first wins."""
    for cloud, (totals, etag) in moved_on(deps.settings, reading.clouds, now_s).items():
        with contextlib.suppress(ConflictError):
            deps.state(cloud).put_totals("qa", totals, if_etag=etag)


@pytest.fixture
def past(world, job, now):
    """Writes a job that ended `days` ago."""

    def make(days, cloud="aws", status=JobStatus.LIVE, **changes):
        slot_s = now - days * DAY
        told = job(job_id=job_id_for("qa", slot_s), slot_s=slot_s, cloud=cloud, data_end_s=slot_s)
        record = JobRecord(job=told, status=status, updated_s=slot_s + 600, started_s=slot_s + 10, cost_usd=0.5)
        record = msgspec.structs.replace(record, **changes)
        world.state(cloud).claim(record)
        return record

    return make


@pytest.fixture
def quiet(world):
    """The world with a policy that never retrains."""
    world.policy = load_policy("never")
    return world


@pytest.fixture
def counted(told):
    """Models that went live, and what all jobs cost."""

    def count(world, now_s):
        said = told(world.deps(), now_s)
        return said["llm_rl_redeploy_total",], sum(said["llm_retrain_cost_usd_total", c] for c in ("aws", "azure"))

    return count


def listed(world):
    return {of.cloud: len(of.recent) for of in history(world.deps(), 0.0).clouds}


def test_a_year_of_jobs_is_read_once_and_counted_forever(quiet, past, now, counted):
    for day in range(365, 0, -1):
        past(day, "aws" if day % 2 else "azure")
    for slot in range(3):
        tick(quiet.deps(), now + 60 * slot)
        assert counted(quiet, now + 60 * slot) == (365, pytest.approx(182.5))
    assert sum(listed(quiet).values()) <= 3
    past(0.01)
    tick(quiet.deps(), now + 240)
    assert counted(quiet, now + 240) == (366, pytest.approx(183.0))
    # A month later everything moved on, still without a job lost or counted twice.
    tick(quiet.deps(), now + 30 * DAY)
    tick(quiet.deps(), now + 30 * DAY + 60)
    assert counted(quiet, now + 30 * DAY + 60) == (366, pytest.approx(183.0))
    assert listed(quiet) == {"aws": 0, "azure": 0}


def test_a_job_in_flight_is_never_passed_over_however_old(quiet, past, now):
    past(30)
    waiting = past(20, status=JobStatus.TRAINING, cost_usd=None)
    past(10, status=JobStatus.FAILED)
    pass_old_jobs(quiet.deps(), read(quiet.deps(), now, observe=False), now)
    assert history(quiet.deps(), now).clouds[0].recent[0].job.job_id == waiting.job.job_id
    tick(quiet.deps(), now)  # the training service does not know it any more
    assert quiet.state().job(waiting.job.job_id).record.status is JobStatus.FAILED
    tick(quiet.deps(), now + 60)
    assert listed(quiet)["aws"] == 0


def test_two_schedulers_that_add_up_the_same_jobs_count_them_once(quiet, past, now):
    for day in (9, 8, 7):
        past(day)
    readings = [read(quiet.deps(cloud), now, observe=False) for cloud in ("aws", "azure")]
    for reading in readings:
        pass_old_jobs(quiet.deps(), reading, now)
    assert quiet.state().service("qa", "").totals.live == 3
    assert history(quiet.deps(), now).clouds[0].total().live == 3


def test_a_crash_while_adding_up_loses_and_doubles_nothing(crash_everywhere, quiet, past, now, counted):
    records = [past(day) for day in (9, 8, 7)]

    def fresh():
        other = dataclasses.replace(quiet, clouds={"aws": memory_cloud("aws"), "azure": memory_cloud("azure")})
        for record in records:
            other.state().claim(record)
        return other

    def check(other):
        tick(other.deps(), now + 60)
        assert counted(other, now + 60) == (3, pytest.approx(1.5))
        assert other.state().service("qa", "").totals.live == 3

    assert crash_everywhere(fresh, lambda _, deps: tick(deps, now), check) >= 15


def test_the_last_model_that_went_live_stays_known(quiet, past, now):
    past(300)
    last = past(200)
    past(100, status=JobStatus.REJECTED)
    tick(quiet.deps(), now)
    assert listed(quiet)["aws"] == 0
    assert history(quiet.deps(), now).jobs() == [last], "training asks what the serving model has seen"


def test_whatever_a_decision_looks_back_to_is_listed(world, past, now):
    cfg = world.deps(cooldown_slots=10_000.0).settings
    assert look_back_s(cfg) > 10_000 * 60
    assert look_back_s(cfg) > 64 * 10_000 * 60, "so long a cooldown may be after many jobs in vain"
    recent = past(6)
    deps = dataclasses.replace(world.deps(), settings=cfg)
    tick(deps, now)
    assert recent in history(deps, now).clouds[0].recent
