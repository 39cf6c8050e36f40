"""Stop means stop: pause, watch mode and `stop` hold for what is decided, queued, running and finished."""

import pytest

from functions.retraining.operator_switch import held_by, paused_by
from functions.retraining.start import Outcome, start_training
from functions.scheduling.tick import tick, training_finished
from policy.decide import load_policy
from shared.contracts import JobStatus
from shared.records import Control, Unread
from shared.settings import Settings

JOB = "qa-20270115t080000"
PAUSED = Control(paused=True, reason="incident 42")


def pause(world, control=PAUSED):
    for cloud in world.clouds:
        world.state(cloud).set_control("qa", control)


@pytest.mark.parametrize("how", ["pause", "watch"])
def test_what_is_decided_does_not_start_and_is_not_sent_again(world, now, how):
    tick(world.deps(), now)
    (message,) = world.queue().messages
    changes = {"mode": "watch"} if how == "watch" else {}
    if how == "pause":
        pause(world)
    for slot in (1, 2, 3):
        tick(world.deps(**changes), now + 60 * slot)
    assert world.queue().messages == [message], "nothing is sent again"
    assert start_training(world.deps(**changes), message, now + 200) in (Outcome.REFUSED, Outcome.DUPLICATE)
    assert not world.training().started
    record = world.state().job(JOB).record
    assert record.status is JobStatus.STOPPED
    assert ("incident 42" if how == "pause" else "watch mode") in record.reason
    pause(world, Control(paused=False, reason=""))
    world.policy = load_policy("never")
    tick(world.deps(), now + 300)
    assert world.queue().messages == [message], "nor when the switch is turned back"


def test_what_is_queued_does_not_start(world, now):
    message = world.message()
    pause(world)
    assert start_training(world.deps(), message, now) is Outcome.REFUSED
    assert "incident 42" in world.state().job(JOB).record.reason
    assert not world.training().started


def test_a_pause_that_reached_one_cloud_only_counts_in_both(world, now):
    message = world.message("azure")
    world.state("aws").set_control("qa", PAUSED)
    assert start_training(world.deps("azure"), message, now) is Outcome.REFUSED


def test_what_is_finished_is_not_released_until_resumed(world, now, artifact):
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB))
    pause(world)
    assert training_finished(world.deps(), JOB, now + 60).status is JobStatus.ACCEPTED
    tick(world.deps(), now + 60 * 600)
    assert world.host("aws").version == world.host("azure").version == "base"
    pause(world, Control(paused=False, reason="", changed_s=now + 60 * 601))
    tick(world.deps(), now + 60 * 602)
    assert world.host("aws").version == world.host("azure").version != "base"


def test_stop_ends_what_runs_and_what_is_finished(world, now, artifact):
    start_training(world.deps(), world.message(), now)
    pause(world, Control(paused=False, reason="", stopped_jobs=(JOB,)))
    tick(world.deps(), now + 60)
    record = world.state().job(JOB).record
    assert (record.status, record.reason) == (JobStatus.STOPPED, "stopped by a person")
    assert world.training().status(JOB).state == "stopped"


def test_stop_ends_what_is_finished_before_it_goes_live(world, now, artifact):
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB))
    pause(world, Control(paused=False, reason="", stopped_jobs=(JOB,)))
    assert training_finished(world.deps(), JOB, now + 60).status is JobStatus.STOPPED
    assert world.host().version == "base"
    assert not list(world.clouds["aws"].objects.entries("models/")), "nothing is kept of it"


def test_stop_ends_what_is_queued(world, now):
    message = world.message()
    pause(world, Control(paused=False, reason="", stopped_jobs=(JOB,)))
    assert start_training(world.deps(), message, now) is Outcome.REFUSED
    assert not world.training().started


def test_a_job_stopped_while_it_was_being_started_is_ended_at_the_service(world, now):
    real = world.training().start

    def start(job, data_uri, parent_uri):
        real(job, data_uri, parent_uri)
        pause(world)
        world.training()._statuses.pop(JOB), tick(world.deps(), now + 1)  # the tick sees a claim nobody started
        real(job, data_uri, parent_uri)

    world.training().start = start
    start_training(world.deps(), world.message(), now)
    assert world.state().job(JOB).record.status is JobStatus.STOPPED
    assert world.training().status(JOB).state == "stopped"


def test_a_switch_that_nobody_can_read_may_be_on():
    assert "cannot be read" in paused_by({"aws": Unread("timed out"), "azure": Unread("refused")})
    assert paused_by({"aws": Unread("timed out"), "azure": None}) is None
    assert paused_by({"aws": Unread("timed out"), "azure": PAUSED}) == "incident 42"


def test_watch_mode_holds_and_a_pause_speaks_first():
    assert held_by(Settings(), None) is None
    assert "watch mode" in held_by(Settings(mode="watch"), None)
    assert "incident" in held_by(Settings(mode="watch"), "incident")


def test_what_never_trained_counts_nothing_against_the_budget(world, now):
    pause(world)
    start_training(world.deps(), world.message(), now)
    pause(world, Control(paused=False, reason=""))
    tick(world.deps(cooldown_slots=0.0), now + 60)
    (held,) = [r for r in world.state().jobs("qa").records if r.status is JobStatus.STOPPED]
    assert held.cost_usd == 0.0
