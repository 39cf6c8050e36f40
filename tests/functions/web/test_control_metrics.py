"""GET /metrics: absolute values from the records, whatever a cloud does not tell."""

import time

import msgspec
import pytest

from functions.scheduling.tick import tick
from functions.web import control_metrics as module
from functions.web.control_metrics import DECISION_SLOTS
from policy.decide import load_policy
from shared.contracts import JobRecord, JobStatus, Release, ReleasedVersion, encode, job_id_for
from shared.errors import UnavailableError
from shared.records import Control
from shared.releases import release_key

DAY = 86_400.0


@pytest.fixture
def quiet(world):
    """A service that ticked once, under a policy that never retrains."""
    world.policy = load_policy("never")
    return world


@pytest.fixture
def past(world, job, now):
    """Writes a job that was decided some seconds ago and, unless told otherwise, trained for ten minutes."""

    def make(ago_s, cloud="aws", status=JobStatus.LIVE, **changes):
        slot_s = now - ago_s
        asked = job(job_id=job_id_for("qa", slot_s), slot_s=slot_s, cloud=cloud, data_end_s=slot_s)
        plain = {"started_s": slot_s + 60, "finished_s": slot_s + 660, "cost_usd": 0.5} | changes
        record = JobRecord(job=asked, status=status, updated_s=slot_s + 700, **plain)
        world.state(cloud).claim(record)
        return record

    return make


class Silent:
    """A port that does not answer."""

    def __getattr__(self, name):
        raise UnavailableError("the cloud", "timed out")


def test_both_clouds_functions_tell_the_same(quiet, past, now, told):
    past(3 * DAY)
    past(7000, "azure", JobStatus.REJECTED)
    past(3600, "azure", JobStatus.FAILED, started_s=None, finished_s=None, cost_usd=0.0)
    tick(quiet.deps(), now)
    said = told(quiet.deps("aws"), now + 1)
    assert said == told(quiet.deps("azure"), now + 1)
    ended = {key[1:]: value for key, value in said.items() if key[0] == "llm_retrain_total" and value}
    assert ended == {("aws", "live"): 1, ("azure", "rejected"): 1, ("azure", "failed"): 1}
    assert said["llm_retrain_total", "aws", "stopped"] == 0, "an increase starts from something"
    assert said["llm_retrain_duration_seconds_sum", "azure"] == 600
    assert said["llm_retrain_duration_seconds_count", "azure"] == 1
    assert said["llm_rl_redeploy_total",] == 1
    assert said["llm_decisions_recent", "hold"] == 1, "the copies of a decision are one"
    assert said["llm_retrain_budget_spent_usd",] == 0.5
    assert said["llm_retrain_budget_limit_usd",] == 50


def test_jobs_that_were_added_up_long_ago_still_count(quiet, past, now, told):
    for day in range(2, 30):
        past(day * DAY, status=JobStatus.LIVE if day % 2 else JobStatus.REJECTED)
    before = told(quiet.deps(), now)
    tick(quiet.deps(), now)
    assert quiet.state().service("qa", "").totals.ended == {"live": 14, "rejected": 13}, "those older than two days"
    after = told(quiet.deps(), now)
    counters = [key for key in before if key[0].startswith(("llm_retrain_total", "llm_retrain_dur", "llm_rl"))]
    assert {key: before[key] for key in counters} == {key: after[key] for key in counters}
    assert before["llm_retrain_total", "aws", "live"] == 14
    assert before["llm_retrain_duration_seconds_sum", "aws"] == 28 * 600


def test_what_runs_and_what_is_late(quiet, past, now, told):
    past(5000, "aws", JobStatus.TRAINING, finished_s=None, cost_usd=None)
    past(600, "azure", JobStatus.CLAIMED, started_s=None, finished_s=None, cost_usd=None)
    said = told(quiet.deps(), now)
    assert (said["llm_jobs_in_flight", "aws"], said["llm_jobs_in_flight", "azure"]) == (1, 1)
    assert said["llm_retrain_overdue_seconds", "aws"] == 5000 - 60 - 3600
    assert said["llm_retrain_overdue_seconds", "azure"] == 0
    assert ("llm_retrain_total", "aws", "training") not in said


def test_queues_switches_routes_and_releases(world, now, told, job):
    tick(world.deps(mode="watch"), now)
    world.queue("azure").enqueue(job())
    world.queue("aws").dead_letter("{}", "not ours")
    world.state("azure").set_control("qa", Control(True, "labels are wrong", changed_s=now))
    versions = (ReleasedVersion(model_version="m1", role="stable"),)
    release = Release(service="qa", revision=41, versions=versions, changed_s=now)
    world.clouds["aws"].objects.put(release_key("qa"), encode(release))
    said = told(world.deps(mode="watch"), now)
    assert (said["llm_retrain_queue_depth", "azure"], said["llm_dead_letters", "aws"]) == (1, 1)
    assert said["llm_paused",] == said["llm_mode", "watch"] == 1
    assert said["llm_route_healthy", "aws"] == said["llm_route_healthy", "azure"] == 1
    assert said["llm_release_revision", "aws"] == 41 and ("llm_release_revision", "azure") not in said
    assert said["llm_control_plane_part_up", "azure", "release"] == 1, "nothing released yet is no failure"
    down = [key for key, value in said.items() if key[0] == "llm_control_plane_part_up" and not value]
    assert not down


def test_a_silent_cloud_is_left_out_and_no_counter_falls(quiet, past, now, told):
    past(3600, "aws")
    past(7000, "azure")
    tick(quiet.deps(), now)
    assert told(quiet.deps(), now)["llm_rl_redeploy_total",] == 2
    quiet.clouds["azure"] = quiet.clouds["azure"]._replace(documents=Silent(), queue=Silent(), objects=Silent())
    said = told(quiet.deps(), now)
    assert said["llm_retrain_total", "aws", "live"] == 1 and ("llm_retrain_total", "azure", "live") not in said
    assert ("llm_rl_redeploy_total",) not in said and ("llm_retrain_budget_spent_usd",) not in said
    assert said["llm_decision_action",] == 0 and said["llm_route_healthy", "azure"] == 1
    parts = {key[2]: value for key, value in said.items() if key[:2] == ("llm_control_plane_part_up", "azure")}
    assert parts == dict.fromkeys(("documents", "decisions", "queue", "dead_letters", "release"), 0)


@pytest.mark.parametrize(
    ("kind", "key", "part", "lost"),
    [
        ("routes", "qa", "routes", None),
        ("control", "qa", "control", None),
        ("tally", "qa", "tally", "llm_retrain_cost_usd_total"),
        ("job", job_id_for("qa", 1_800_000_000.0 - 60), "jobs", "llm_retrain_cost_usd_total"),
    ],
)
def test_one_unreadable_document_leaves_the_others(quiet, past, now, told, kind, key, part, lost):
    past(3600, "aws")
    tick(quiet.deps(), now)
    quiet.clouds["aws"].documents.put(kind, key, b'{"version": 99}')
    said = told(quiet.deps(), now)
    assert said["llm_control_plane_part_up", "aws", part] == 0
    assert [key for key, value in said.items() if "up" in key[0] and not value] == [
        ("llm_control_plane_part_up", "aws", part)
    ]
    assert said["llm_route_healthy", "aws"] == 1 and said["llm_dead_letters", "aws"] == 0
    assert lost is None or (lost, "aws") not in said
    assert said["llm_retrain_cost_usd_total", "azure"] == 0


def test_work_is_bounded_however_long_the_history(quiet, now, told):
    state, decision = quiet.state(), tick(quiet.deps(), now)
    for back in range(1, 500):
        slot_s = now - 60 * back
        changes = {"decision_id": f"decision-{job_id_for('qa', slot_s)}", "slot_s": slot_s}
        state.record_decision(msgspec.structs.replace(decision, **changes))
    assert told(quiet.deps(), now)["llm_decisions_recent", "hold"] == DECISION_SLOTS + 1


def test_a_cloud_that_hangs_costs_its_own_time_only(quiet, past, now, told, monkeypatch):
    class Hanging:
        def __getattr__(self, name):
            return lambda *_, **__: time.sleep(30)

    past(3600, "aws")
    monkeypatch.setattr(module, "SECONDS", 0.5)
    quiet.clouds["azure"] = quiet.clouds["azure"]._replace(documents=Hanging())
    begun = time.monotonic()
    said = told(quiet.deps(), now)
    assert time.monotonic() - begun < 2.0
    assert said["llm_retrain_total", "aws", "live"] == 1
