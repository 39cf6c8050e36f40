import dataclasses
import json
import logging
import random

import msgspec
import pytest

from functions.retraining.start import Outcome, start_training
from shared.contracts import JobRecord, JobStatus, encode
from shared.errors import UnavailableError
from tests.fakes import memory_cloud

JOB = "qa-20270115t080000"


def status(world, job_id, cloud="aws"):
    held = world.state(cloud).job(job_id)
    return held.record.status if held else None


def test_a_message_starts_one_training_job_on_the_pairs_of_both_clouds(world, job, now):
    assert start_training(world.deps(), world.message(), now) is Outcome.STARTED
    ((started, data_uri, parent_uri),) = world.training().started
    assert started.job_id == JOB
    assert data_uri == "memory://aws/jobs/qa-20270115t080000/data/"
    assert parent_uri is None, "the base model comes with the image"
    lines = world.clouds["aws"].objects.get("jobs/qa-20270115t080000/data/train.jsonl").splitlines()
    assert [json.loads(line)["question"] for line in lines] == [f"question {n}" for n in range(20)]
    assert status(world, JOB) is JobStatus.TRAINING


def test_training_continues_from_the_serving_model(world, job, now):
    start_training(world.deps(), world.message(parent="m1"), now)
    assert world.training().started[0][2] == "memory://aws/models/m1/"


def test_duplicates_and_redeliveries_start_nothing_more(world, job, now):
    raw = world.message()
    outcomes = [start_training(world.deps(), raw, now + n) for n in range(5)]
    assert outcomes == [Outcome.STARTED] + [Outcome.DUPLICATE] * 4
    assert len(world.training().started) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-1], "not JSON"),
        (lambda text: text.replace('"qa-20270115t080000"', '"Not A Name"'), "$.job_id"),
        (lambda text: text.replace('"deadline_s":3600.0', '"deadline_s":-1'), "$.deadline_s"),
        (lambda text: text.replace('"version":1', '"version":9'), "version 9"),
        (lambda text: text.replace('"cloud":"aws"', '"cloud":"azure"'), "this is the queue of aws"),
        (lambda text: "", "not JSON"),
    ],
)
def test_a_message_nobody_can_handle_is_kept_with_its_reason(world, job, now, change, words):
    raw = change(world.message())
    assert start_training(world.deps(), raw, now) is Outcome.DEAD_LETTERED
    ((body, reason),) = world.queue().dead
    assert body == raw
    assert words in reason
    assert not world.training().started


def test_a_second_job_of_the_service_is_refused_with_the_name_of_the_first(world, job, now):
    start_training(world.deps(), world.message(), now)
    second = world.decided(job_id="qa-20270115t080500", slot_s=now + 300)
    assert start_training(world.deps(), encode(second).decode(), now + 301) is Outcome.REFUSED
    record = world.state().job(second.job_id).record
    assert record.status is JobStatus.STOPPED
    assert JOB in record.reason
    assert len(world.training().started) == 1


def test_a_job_on_the_other_cloud_blocks_too_until_it_ends(world, job, now):
    azure = world.decided("azure")
    start_training(world.deps("azure"), encode(azure).decode(), now)
    second, third = (world.decided(job_id=f"qa-20270115t08{m}00", slot_s=now + 60) for m in (10, 20))
    assert start_training(world.deps("aws"), encode(second).decode(), now + 61) is Outcome.REFUSED
    held = world.state("azure").job(azure.job_id)
    world.state("azure").update(held, msgspec.structs.replace(held.record, status=JobStatus.FAILED))
    assert start_training(world.deps("aws"), encode(third).decode(), now + 62) is Outcome.STARTED


def test_services_do_not_block_each_other(world, job, now):
    outcomes = [
        start_training(world.deps(), world.message(service=name, job_id=f"{name}-1"), now) for name in ("a", "b")
    ]
    assert outcomes == [Outcome.STARTED, Outcome.STARTED]


def test_a_job_that_waited_past_its_deadline_is_refused(world, job, now):
    assert start_training(world.deps(), world.message(), now + 3601) is Outcome.REFUSED
    assert "longer than its deadline" in world.state().job(JOB).record.reason


def test_too_few_new_pairs_is_a_refusal_in_words(world, job, now):
    deps = world.deps(min_new_pairs=21)
    assert start_training(deps, world.message(), now) is Outcome.REFUSED
    assert "only 20 labelled pairs" in world.state().job(JOB).record.reason


def test_pairs_the_serving_model_has_seen_are_not_new(world, job, now):
    before = JobRecord(job=job(job_id="qa-1", data_end_s=now - 585), status=JobStatus.LIVE, updated_s=now - 500)
    world.state().claim(before)
    assert start_training(world.deps(min_new_pairs=6), world.message(), now) is Outcome.REFUSED
    assert "only 5 labelled pairs" in world.state().job(JOB).record.reason


def test_a_damaged_line_of_feedback_is_skipped_and_logged(world, job, now, caplog):
    world.clouds["aws"].objects.put("feedback/aws/20270115T075900-x.jsonl", b'{"question": 7}\n')
    with caplog.at_level(logging.WARNING, "opportune"):
        assert start_training(world.deps(), world.message(), now) is Outcome.STARTED
    record = next(r for r in caplog.records if "damaged" in r.message)
    assert "20270115T075900-x.jsonl, line 1" in record.first


def test_the_other_clouds_store_may_be_down(world, job, now):
    class Down:
        def entries(self, prefix):
            raise UnavailableError("blob", "connection refused")

    world.clouds["azure"] = world.clouds["azure"]._replace(objects=Down())
    assert start_training(world.deps(), world.message(), now) is Outcome.STARTED
    assert len(world.clouds["aws"].objects.get("jobs/qa-20270115t080000/data/train.jsonl").splitlines()) == 10


def test_the_lock_moves_to_the_own_table_when_the_home_cloud_is_down(world, job, now):
    class Down:
        def __getattr__(self, name):
            raise UnavailableError("table", "connection refused")

    world.clouds["aws"] = world.clouds["aws"]._replace(documents=Down())
    assert start_training(world.deps("azure"), world.message("azure"), now) is Outcome.STARTED


def test_a_crash_between_any_two_steps_is_repaired_by_the_redelivered_message(crash_everywhere, world, job, now):
    def fresh():
        clouds = {"aws": memory_cloud("aws"), "azure": memory_cloud("azure")}
        other = dataclasses.replace(world, clouds=clouds)
        other.label("aws", 0, 10)
        return other

    def check(world):
        assert len(world.training().started) == 1
        assert status(world, JOB) is JobStatus.TRAINING

    crashes = crash_everywhere(fresh, lambda other, deps: start_training(deps, other.message(), now), check)
    assert crashes >= 20, "the sweep must reach every port call"


def test_hundreds_of_messages_with_duplicates_start_each_job_once(world, job, now):
    rng = random.Random(7)
    messages = [world.message(service=f"s{n}", job_id=f"s{n}-1") for n in range(100)]
    for raw in rng.sample(messages * 3, 300):
        start_training(world.deps(), raw, now)
    assert sorted(j.job_id for j, _, _ in world.training().started) == sorted(f"s{n}-1" for n in range(100))
