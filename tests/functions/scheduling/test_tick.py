import dataclasses
import json
import logging
import time

import msgspec
import pytest

from functions.retraining.job_message import training_job
from functions.retraining.start import Outcome, start_training
from functions.scheduling.leadership import leads
from functions.scheduling.tick import tick, training_finished
from policy.decide import load_policy
from shared.contracts import Action, JobStatus, RouteTable, TrainingJob, decode, encode
from shared.errors import MetricsUnavailableError, UnavailableError
from shared.records import Control
from shared.settings import Settings
from shared.values import Served
from tests.fakes import memory_cloud

JOB = "qa-20270115t080000"


class Down:
    """A cloud service that does not answer."""

    def __getattr__(self, name):
        raise UnavailableError("table", "connection refused")


def test_a_retrain_is_recorded_on_both_clouds_and_enqueued_once(world, now):
    decision = tick(world.deps(), now)
    assert decision.action is Action.RETRAIN_AWS
    assert decision.job_id == JOB
    assert world.state("aws").decision(decision.decision_id) == world.state("azure").decision(decision.decision_id)
    (message,) = world.queue("aws").messages
    job = decode(TrainingJob, message)
    assert (job.job_id, job.trace_id, job.parent_version) == (JOB, decision.trace_id, "base")
    assert job.hyperparameters["parent_version"] == "base"
    assert not world.queue("azure").messages


def test_the_cheaper_cloud_gets_the_job(world, now):
    tick(world.deps(price_usd_per_hour_azure=0.1), now)
    assert not world.queue("aws").messages
    assert len(world.queue("azure").messages) == 1


def test_a_duplicate_tick_decides_nothing_new(world, now):
    first = tick(world.deps(), now)
    assert tick(world.deps(), now + 30) == first
    assert {decode(TrainingJob, m).job_id for m in world.queue().messages} == {JOB}
    assert len(world.state().decisions()) == 1


def test_two_schedulers_in_one_slot_agree_on_one_job(world, now):
    # Split brain: the standby believes itself in charge and would choose the other cloud.
    tick(world.deps("aws"), now)
    table = world.state("azure").routes("qa")
    newer = msgspec.structs.replace(table, scheduler="azure", heartbeat_s=table.heartbeat_s + 1)
    world.clouds["azure"].documents.put("routes", "qa", encode(newer))
    other = tick(world.deps("azure", price_usd_per_hour_azure=0.1), now + 1)
    assert other.action is Action.RETRAIN_AWS, "the slot was already decided"
    outcomes = [start_training(world.deps("aws"), m, now + 2) for m in world.queue("aws").messages]
    assert outcomes.count(Outcome.STARTED) == 1
    assert not world.queue("azure").messages


def test_ten_slots_of_split_brain_start_one_job_per_decision(world, now, artifact):
    for slot in range(10):
        at = now + 60 * slot
        tick(world.deps("aws", cooldown_slots=0.0, min_new_pairs=1), at)
        table = world.state("azure").routes("qa")
        world.clouds["azure"].documents.put(
            "routes", "qa", msgspec.json.encode(msgspec.structs.replace(table, scheduler="azure"))
        )
        tick(world.deps("azure", cooldown_slots=0.0, price_usd_per_hour_azure=0.1), at + 5)
        for cloud in ("aws", "azure"):
            for message in world.queue(cloud).messages:
                start_training(world.deps(cloud, min_new_pairs=1), message, at + 10)
    ids = [job.job_id for cloud in ("aws", "azure") for job, _, _ in world.training(cloud).started]
    assert len(ids) == len(set(ids)) == 1, "one is in flight for all ten slots"


def test_while_a_job_is_in_flight_the_tick_holds(world, now):
    tick(world.deps(), now)
    start_training(world.deps(), world.queue().messages[0], now + 1)
    decision = tick(world.deps(), now + 60)
    assert decision.action is Action.HOLD
    assert "one job at a time" in decision.reason


def test_a_job_nobody_claimed_yet_is_in_flight_and_sent_again(world, now):
    tick(world.deps(), now)
    world.queue().messages.clear()  # the tick crashed before sending
    decision = tick(world.deps(), now + 60)
    assert decision.action is Action.HOLD
    assert [decode(TrainingJob, m).job_id for m in world.queue().messages] == [JOB]


def test_missing_metrics_hold_with_the_reason(world, now, no_metrics):
    for error in (no_metrics, MetricsUnavailableError("http://prometheus", "refused")):
        world.metrics = error
        now += 60
        decision = tick(world.deps(), now)
        assert decision.action is Action.HOLD
        assert str(error) in decision.reason
    assert not world.queue().messages


def test_a_paused_service_releases_nothing_until_it_is_resumed(world, now, artifact):
    tick(world.deps(), now)
    start_training(world.deps(), world.queue().messages[0], now + 1)
    world.training().finish(JOB, artifact=artifact(JOB))
    world.state().set_control("qa", Control(paused=True, reason="quarter end"))
    decision = tick(world.deps(cooldown_slots=0.0), now + 60)
    assert decision.action is Action.HOLD
    assert "quarter end" in decision.reason
    record = world.state().job(JOB).record
    assert record.status is JobStatus.ACCEPTED, "it is judged, and waits"
    assert world.host("aws").version == world.host("azure").version == "base"
    assert "quarter end" in record.waits["release"]
    world.state().set_control("qa", Control(paused=False, reason="", changed_s=now + 7200))
    tick(world.deps(cooldown_slots=0.0), now + 7260)
    assert world.state().job(JOB).record.status is JobStatus.LIVE, "waiting for a person is not being late"


def test_watch_mode_decides_and_records_but_never_enqueues(world, now):
    decision = tick(world.deps(mode="watch"), now)
    assert (decision.wanted, decision.action) == (Action.RETRAIN_AWS, Action.HOLD)
    assert not world.queue().messages
    assert world.state().decision(decision.decision_id) is not None


def test_a_lost_completion_event_costs_a_slot_not_the_job(world, now, artifact):
    tick(world.deps(), now)
    start_training(world.deps(), world.queue().messages[0], now + 1)
    world.training().finish(JOB, artifact=artifact(JOB))
    tick(world.deps(), now + 60)
    assert world.state().job(JOB).record.status is JobStatus.LIVE
    assert {e.model_version for e in world.state("azure").routes("qa").endpoints} == {world.host().version}


def test_a_cloud_that_fell_silent_stays_unhealthy_in_the_tick_that_releases_a_model(world, now, artifact):
    tick(world.deps(), now)
    start_training(world.deps(), world.queue().messages[0], now + 1)
    world.training().finish(JOB, artifact=artifact(JOB))
    world.served = {"aws": Served(0.1, now - 1000), "azure": Served(0.1, now + 59)}
    tick(world.deps(), now + 60)
    assert world.state().job(JOB).record.status is JobStatus.LIVE
    assert {e.cloud: e.healthy for e in world.state().routes("qa").endpoints} == {"aws": False, "azure": True}


def test_the_first_tick_publishes_the_routes_and_later_ones_only_the_heartbeat(world, now):
    world.policy = load_policy("never")
    tick(world.deps(), now)
    first = world.state("azure").routes("qa")
    assert (first.epoch, first.scheduler, first.heartbeat_s) == (0, "aws", now)
    assert {e.url for e in first.endpoints} == {"http://aws.memory", "http://azure.memory"}
    tick(world.deps(), now + 60)
    second = world.state("azure").routes("qa")
    assert (second.epoch, second.heartbeat_s) == (0, now + 60)
    world.host("azure").version = "m2"
    tick(world.deps(), now + 120)
    assert world.state("aws").routes("qa").epoch == 1


def test_an_endpoint_that_does_not_answer_is_marked_unhealthy_not_dropped(world, now):
    world.policy = load_policy("never")
    tick(world.deps(), now)
    world.clouds["azure"] = world.clouds["azure"]._replace(host=Down())
    tick(world.deps(), now + 60)
    health = {e.cloud: e.healthy for e in world.state().routes("qa").endpoints}
    assert health == {"aws": True, "azure": False}


@pytest.mark.parametrize(
    ("cloud", "scheduler", "silence_s", "acts"),
    [
        ("aws", "aws", 0, True),
        ("aws", "azure", 0, True),
        ("azure", "aws", 180, False),
        ("azure", "aws", 181, True),
        ("azure", "azure", 60, True),
    ],
)
def test_the_standby_acts_only_when_the_heartbeat_is_old(now, cloud, scheduler, silence_s, acts):
    table = RouteTable(
        service="qa",
        epoch=0,
        published_s=now,
        scheduler=scheduler,
        heartbeat_s=now - silence_s,
        endpoints=(),
        trace_id="0" * 32,
    )
    assert leads(Settings(cloud=cloud), table, now) is acts


def test_the_standby_takes_over_and_hands_back(world, now):
    world.policy = load_policy("never")
    tick(world.deps("aws"), now)
    assert tick(world.deps("azure"), now + 60) is None
    aws = world.clouds["aws"]
    world.clouds["aws"] = aws._replace(documents=Down(), host=Down())
    taken = tick(world.deps("azure"), now + 240)
    assert taken.decided_by == "azure"
    assert tick(world.deps("azure"), now + 300) is not None, "its own heartbeat keeps it in charge"
    world.clouds["aws"] = aws
    tick(world.deps("aws"), now + 360)
    assert tick(world.deps("azure"), now + 365) is None


def test_a_fresh_standby_has_nothing_to_take_over(world, now):
    assert tick(world.deps("azure"), now) is None


def test_the_other_cloud_trains_when_one_does_not_answer(world, now):
    world.clouds["azure"] = world.clouds["azure"]._replace(documents=Down())
    decision = tick(world.deps(price_usd_per_hour_azure=0.1), now)
    assert decision.action is Action.RETRAIN_AWS
    assert len(world.queue("aws").messages) == 1


def test_counters_are_absolute_so_a_repeated_tick_does_not_count_twice(world, now, artifact, told):
    tick(world.deps(), now)
    start_training(world.deps(), world.queue().messages[0], now + 1)
    world.training().finish(JOB, artifact=artifact(JOB), started_s=now, finished_s=now + 3600)
    training_finished(world.deps(), JOB, now + 3600)
    for _ in range(2):
        tick(world.deps(cooldown_slots=1000.0), now + 3660)
    said = told(world.deps(), now + 3660)
    assert said["llm_rl_redeploy_total",] == 1
    assert said["llm_static_retrain_total",] == 0
    assert said["llm_retrain_cost_usd_total", "aws"] == pytest.approx(0.8218)
    assert said["llm_decision_action",] == 0
    assert said["llm_decision_slot_timestamp_seconds",] == now + 3660


def test_the_static_baseline_counts_its_own_retrains(world, now, told):
    deps = world.deps(policy="static")
    tick(deps, now)
    start_training(deps, world.queue().messages[0], now + 1)
    tick(deps, now + 60)
    said = told(deps, now + 60)
    assert (said["llm_static_retrain_total",], said["llm_rl_redeploy_total",]) == (1, 0)


def test_the_cost_ceiling_bounds_the_running_time(world, now):
    decision = tick(world.deps(), now)
    job = training_job(Settings(cost_ceiling_usd=0.08218), decision, "aws", "base")
    assert job.deadline_s == pytest.approx(360.0)
    assert job.hyperparameters["max_seconds"] == str(job.deadline_s)


def test_one_trace_id_leads_from_the_decision_to_the_route(world, now, artifact, caplog):
    with caplog.at_level(logging.INFO, "opportune"):
        decision = tick(world.deps(), now)
        start_training(world.deps(), world.queue().messages[0], now + 1)
        world.training().finish(JOB, artifact=artifact(JOB))
        training_finished(world.deps(), JOB, now + 60)
    actions = [r.action for r in caplog.records if getattr(r, "trace_id", "") == decision.trace_id]
    assert [a for n, a in enumerate(actions) if a not in actions[:n]] == [
        "decide",
        "enqueue",
        "train",
        "gate",
        "route",
    ]


def test_secrets_are_in_no_message(world, now, caplog):
    with caplog.at_level(logging.DEBUG):
        tick(world.deps(azure_storage_connection="AccountKey=hunter2", prometheus_token="hunter2"), now)
    assert "hunter2" not in json.dumps([r.__dict__ for r in caplog.records], default=str)
    assert "hunter2" not in "".join(world.queue().messages)


def test_a_crash_between_any_two_steps_is_repaired_by_the_next_slot(crash_everywhere, world, now):
    def fresh():
        other = dataclasses.replace(world, clouds={"aws": memory_cloud("aws"), "azure": memory_cloud("azure")})
        other.label("aws", 0, 10)
        return other

    def check(other):
        tick(other.deps(), now + 60)  # whatever was lost is made up for one slot later
        outcomes = [start_training(other.deps(), m, now + 61) for m in other.queue().messages]
        assert outcomes.count(Outcome.STARTED) == 1
        assert len(other.training().started) == 1

    assert crash_everywhere(fresh, lambda _, deps: tick(deps, now), check) >= 20


def test_a_cloud_that_hangs_costs_one_time_out_a_tick(world, now):
    class Hanging:
        asked = 0

        def __getattr__(self, name):
            type(self).asked += 1
            time.sleep(30)

    azure = world.clouds["azure"]
    world.clouds["azure"] = azure._replace(documents=Hanging(), objects=Hanging(), host=Hanging())
    started_s = time.monotonic()
    decision = tick(dataclasses.replace(world.deps(), call_s=0.3, long_call_s=0.3), now)
    assert time.monotonic() - started_s < 3.0
    assert Hanging.asked == 1
    assert decision.action is Action.RETRAIN_AWS
    assert "no answer within 0.3 s" in decision.conditions["azure documents"]
