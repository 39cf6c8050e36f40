"""A training start at its limits: just in time, just enough pairs, and each way a cloud can answer."""

import logging
from typing import Any

import msgspec
import pytest

from functions.retraining.start import Outcome, start_training
from shared.contracts import FeedbackPair, JobRecord, JobStatus, encode
from shared.errors import CapacityError, ConflictError, ModelError, RefusedError, UnavailableError
from shared.records import Control, JobTotals
from tests.fakes import MemoryDocuments, MemoryTraining

JOB = "qa-20270115t080000"


class Down:
    """A cloud service that does not answer."""

    def __getattr__(self, name):
        raise UnavailableError("table", "connection refused")


class Failing(MemoryTraining):
    """A training service that answers a start with an error."""

    error: Exception = UnavailableError("training", "no answer")

    def start(self, job, data_uri, parent_uri):
        raise self.error


def recorded(world):
    return world.state().job(JOB).record


def begin(world, now_s, message=None, **settings: Any) -> Outcome:
    return start_training(world.deps(**settings), message or world.message(), now_s)


def failing(world, error):
    training = Failing()
    training.error = error
    world.clouds["aws"] = world.clouds["aws"]._replace(training=training)


def test_a_message_is_in_time_until_its_deadline_has_passed(world, now):
    message = world.message()
    assert begin(world, now + 3600.0, message) is Outcome.STARTED
    other = world.message(job_id="qb-1", service="qb")
    assert begin(world, now + 3600.5, other) is Outcome.REFUSED
    reason = world.state().job("qb-1").record.reason
    assert reason == "waited in the queue for longer than its deadline of 3600 s"


def test_the_least_number_of_new_pairs_is_enough(world, now):
    assert begin(world, now, min_new_pairs=20) is Outcome.STARTED
    assert recorded(world).status is JobStatus.TRAINING
    assert recorded(world).started_s == now


def test_one_pair_too_few_is_told_with_both_numbers(world, now, caplog):
    with caplog.at_level(logging.INFO, "opportune"):
        assert begin(world, now, min_new_pairs=21) is Outcome.REFUSED
    assert [r.pairs for r in caplog.records if r.message == "training refused"] == [0], "none was trained on"
    record = recorded(world)
    assert (record.status, record.started_s, record.cause) == (JobStatus.STOPPED, None, "")
    assert record.reason == "only 20 labelled pairs the serving model has not seen; 21 are needed"


@pytest.mark.parametrize("passed", [False, True], ids=["listed", "in the totals"])
def test_a_pair_that_came_as_the_serving_models_data_ended_is_new_to_it(world, job, now, passed):
    """The serving model saw all before -590; pairs came at -600, -599, ... -581."""
    live = JobRecord(job=job(job_id="qa-1", data_end_s=now - 590.0), status=JobStatus.LIVE, updated_s=now - 500)
    if passed:
        world.state("azure").put_totals("qa", JobTotals(through="qa-1", last_live=live), if_etag=None)
    else:
        world.state("azure").claim(live)
    assert begin(world, now, min_new_pairs=11) is Outcome.REFUSED
    assert "only 10 labelled pairs" in recorded(world).reason


@pytest.mark.parametrize("status", [JobStatus.REJECTED, JobStatus.FAILED])
def test_what_a_model_saw_that_never_served_is_still_new(world, job, now, status):
    world.state().claim(JobRecord(job=job(job_id="qa-1", data_end_s=now), status=status, updated_s=now - 500))
    assert begin(world, now, min_new_pairs=20) is Outcome.STARTED


def test_totals_without_a_live_model_hide_no_pair(world, now):
    world.state().put_totals("qa", JobTotals(through="qa-1"), if_etag=None)
    assert begin(world, now, min_new_pairs=20) is Outcome.STARTED


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RefusedError("CreateTrainingJob", "AccessDenied"), "refused"),
        (ModelError("no such image"), "refused"),
        (CapacityError("CreateTrainingJob", "no ml.g4dn.xlarge"), "capacity"),
    ],
)
def test_a_refusal_ends_the_job_and_is_the_clouds(world, now, error, cause):
    failing(world, error)
    assert begin(world, now + 5) is Outcome.REFUSED
    record = recorded(world)
    assert (record.status, record.cause, record.updated_s, record.started_s) == (JobStatus.FAILED, cause, now + 5, None)
    assert str(error) in record.reason


def test_a_silent_training_service_is_tried_again_and_its_words_are_kept(world, now):
    failing(world, UnavailableError("CreateTrainingJob", "503 " + "x" * 900))
    with pytest.raises(UnavailableError, match="503"):
        begin(world, now)
    record = recorded(world)
    assert record.status is JobStatus.CLAIMED
    assert "503" in record.waits["training service"]
    assert len(record.waits["training service"]) == 500, "no page of HTML in the record"
    world.clouds["aws"] = world.clouds["aws"]._replace(training=MemoryTraining())
    assert begin(world, now + 30) is Outcome.STARTED, "the redelivery"
    assert recorded(world).waits == {}


def test_a_message_without_a_recorded_decision_is_for_a_person(world, now):
    message = world.message().replace(f"decision-{JOB}", "decision-forged")
    assert begin(world, now, message) is Outcome.DEAD_LETTERED
    assert "no decision decision-forged is recorded" in world.queue().dead[0][1]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (('"deadline_s":3600.0', '"deadline_s":7200.0'), "deadline_s is 7200.0"),
        (('"cost_ceiling_usd":10.0', '"cost_ceiling_usd":99.0'), "cost_ceiling_usd is 99.0"),
        (('"epochs":"5"', '"epochs":"500"'), "epochs is '500'"),
    ],
)
def test_a_message_that_asks_for_more_than_was_decided_is_for_a_person(world, now, written, words):
    assert begin(world, now, world.message().replace(*written)) is Outcome.DEAD_LETTERED
    assert words in world.queue().dead[0][1]
    assert not world.training().started


def test_while_a_cloud_that_may_have_the_decision_is_silent_the_message_waits(world, now):
    message = world.message().replace(f"decision-{JOB}", "decision-elsewhere")
    world.clouds["azure"] = world.clouds["azure"]._replace(documents=Down())
    with pytest.raises(UnavailableError, match="connection refused"):
        begin(world, now, message)
    assert not world.queue().dead


@pytest.mark.parametrize("cloud", ["aws", "azure"])
@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize(
    ("control", "words"),
    [
        (Control(paused=True, reason="freeze"), "retraining is paused: freeze"),
        (Control(paused=False, reason="", stopped_jobs=(JOB,)), "stopped by a person"),
    ],
)
def test_a_persons_word_in_any_cloud_stops_a_start(world, now, cloud, claimed, control, words):
    if claimed:
        world.state().claim(JobRecord(job=world.decided(), status=JobStatus.CLAIMED, updated_s=now))
    world.state(cloud).set_control("qa", control)
    assert begin(world, now + 5) is Outcome.REFUSED
    record = recorded(world)
    assert (record.status, record.reason, record.updated_s) == (JobStatus.STOPPED, words, now + 5)
    assert not world.training().started


def test_another_jobs_stop_is_none_of_its_business(world, now):
    world.state().set_control("qa", Control(paused=False, reason="", stopped_jobs=("qa-1",)))
    assert begin(world, now) is Outcome.STARTED


def test_a_claim_that_a_crash_left_behind_is_carried_on_even_late(world, now):
    world.state().claim(JobRecord(job=world.decided(), status=JobStatus.CLAIMED, updated_s=now))
    assert begin(world, now + 3700) is Outcome.STARTED, "it was claimed in time"


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.CLAIMED])
def test_a_job_beyond_its_claim_is_a_duplicate_and_stays_as_it_is(world, now, status):
    there = JobRecord(job=world.decided(), status=status, updated_s=now)
    world.state().claim(there)
    assert begin(world, now + 5) is Outcome.DUPLICATE
    assert recorded(world) == there
    assert not world.training().started


class Contended(MemoryDocuments):
    """A table in which somebody else writes this job's record between our look and our write."""

    def __init__(self, other: JobStatus, on: JobStatus) -> None:
        super().__init__()
        self.other, self.on = other, on

    def put(self, kind, key, body, *, if_etag=None, if_absent=False):
        mine = msgspec.json.decode(body, type=JobRecord) if kind == "job" else None
        if mine is not None and mine.status is self.on:
            super().put(kind, key, encode(msgspec.structs.replace(mine, status=self.other, reason="somebody else")))
            raise ConflictError(f"{kind} {key}: somebody else was first")
        return super().put(kind, key, body, if_etag=if_etag, if_absent=if_absent)


def contended(world, other, on):
    world.clouds["aws"] = world.clouds["aws"]._replace(documents=Contended(other, on))


@pytest.mark.parametrize(
    ("other", "outcome"), [(JobStatus.TRAINING, Outcome.DUPLICATE), (JobStatus.CLAIMED, Outcome.STARTED)]
)
def test_a_claim_that_somebody_else_won_is_looked_into(world, now, other, outcome):
    """CLAIMED may be our own write whose answer was lost; anything else is not."""
    contended(world, other, JobStatus.CLAIMED)
    assert begin(world, now) is outcome
    assert bool(world.training().started) is (outcome is Outcome.STARTED)


@pytest.mark.parametrize(
    ("other", "stopped"),
    [(JobStatus.STOPPED, True), (JobStatus.FAILED, True), (JobStatus.SUCCEEDED, False), (JobStatus.ACCEPTED, False)],
)
def test_what_was_ended_while_it_was_started_is_stopped_again(world, now, other, stopped):
    contended(world, other, JobStatus.TRAINING)
    assert begin(world, now) is Outcome.DUPLICATE
    assert recorded(world).reason == "somebody else"
    assert (world.training().status(JOB).state == "stopped") is stopped


def test_a_refusal_that_somebody_else_overtook_starts_nothing(world, now):
    contended(world, JobStatus.TRAINING, JobStatus.STOPPED)
    world.state().claim(JobRecord(job=world.decided(), status=JobStatus.CLAIMED, updated_s=now))
    world.state().set_control("qa", Control(paused=True, reason="freeze"))
    assert begin(world, now) is Outcome.DUPLICATE
    assert not world.training().started


def test_only_the_own_pairs_are_needed_and_each_counts_once(world, now, caplog):
    both = FeedbackPair(question="question 3", answers=("answer 3",), received_s=now - 597.0)
    world.clouds["azure"].objects.put("feedback/azure/20270115T075501-x.jsonl", encode(both) + b"\n")
    with caplog.at_level(logging.INFO, "opportune"):
        assert begin(world, now, min_new_pairs=20) is Outcome.STARTED
    assert next(r.pairs for r in caplog.records if r.message == "training started") == 20
    world.clouds["aws"] = world.clouds["aws"]._replace(objects=Down())
    with pytest.raises(UnavailableError, match="connection refused"):
        begin(world, now, world.message(job_id="qb-1", service="qb"))
