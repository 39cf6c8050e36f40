"""What clouds do to a scheduler, case by case: lost answers, split traffic, refusals, silence, newer programs."""

import dataclasses
import json

import msgspec
import pytest

from functions.retraining.start import Outcome, start_training
from functions.scheduling.tick import tick, training_finished
from policy.decide import load_policy
from shared.contracts import Action, JobStatus, decode
from shared.errors import (
    CapacityError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from shared.records import Control
from shared.settings import Settings
from shared.values import HostState, TrainingStatus
from tests.fakes import MemoryDocuments

JOB = "qa-20270115t080000"


class LosesAnswers(MemoryDocuments):
    """Applies each first write of a kind, then says that it failed; a library sends it again and meets its own."""

    def __init__(self, inner, kind, error):
        super().__init__()
        self._documents, self._kind, self._error, self._lost = inner._documents, kind, error, set()

    def put(self, kind, key, body, *, if_etag=None, if_absent=False):
        etag = super().put(kind, key, body, if_etag=if_etag, if_absent=if_absent)
        if kind == self._kind and key not in self._lost:
            self._lost.add(key)
            raise self._error
        return etag


def replaced(world, cloud, **ports):
    world.clouds[cloud] = world.clouds[cloud]._replace(**ports)


def slots(world, now, count, **changes):
    """So many ticks, and what waits in the queues delivered after each."""
    for slot in range(1, count + 1):
        decision = tick(world.deps(**changes), now + 60 * slot)
        for cloud in world.clouds:
            messages, world.queue(cloud).messages = world.queue(cloud).messages, []
            for message in messages:
                try:
                    start_training(world.deps(cloud), message, now + 60 * slot + 1)
                except UnavailableError:
                    world.queue(cloud).messages.append(message)  # delivered again
    return decision


# --- lost answers


@pytest.mark.parametrize("error", [ConflictError("somebody else was first"), UnavailableError("table", "500")])
def test_a_claim_whose_answer_was_lost_is_ones_own(world, now, error):
    message = world.message()
    replaced(world, "aws", documents=LosesAnswers(world.clouds["aws"].documents, "job", error))
    try:
        outcome = start_training(world.deps(), message, now)
    except UnavailableError:
        outcome = start_training(world.deps(), message, now + 30)  # delivered again
    assert outcome is Outcome.STARTED
    assert len(world.training().started) == 1


@pytest.mark.parametrize("error", [ConflictError("somebody else was first"), UnavailableError("table", "500")])
@pytest.mark.parametrize("kind", ["decision", "routes", "lock", "tally"])
def test_a_write_whose_answer_was_lost_stops_nothing(world, now, kind, error):
    replaced(world, "aws", documents=LosesAnswers(world.clouds["aws"].documents, kind, error))
    decision = tick(world.deps(), now)
    assert decision.action is Action.RETRAIN_AWS
    world.policy = load_policy("never")
    slots(world, now, 2)
    assert len(world.training().started) == 1
    assert world.state("azure").routes("qa").heartbeat_s == now + 120


# --- what serves is not known


def judged_beside(world, now, artifact, metrics_with, host):
    """A worse candidate, finished while the endpoint says what `host` says."""
    tick(world.deps(policy="never"), now - 60)  # the endpoints have been published
    start_training(world.deps(), world.message(), now)
    worse = artifact(JOB, candidate=metrics_with(0.1), serving=metrics_with(0.8))
    world.training().finish(JOB, artifact=worse, finished_s=now + 10)
    world.host().state = host
    return training_finished(world.deps(), JOB, now + 20)


def raising(error):
    def state():
        raise error

    return state


@pytest.mark.parametrize(
    "host",
    [
        lambda: HostState(None, "http://aws.memory", updating=True, reason="Creating"),
        lambda: HostState(None, "http://aws.memory", healthy=False, reason="no deployment takes traffic"),
        raising(UnavailableError("endpoint", "timed out")),
        raising(NotFoundError("endpoint: not found")),
        raising(KeyError("ProductionVariants")),
    ],
    ids=["being made again", "no traffic", "silent", "missing", "answer without a field"],
)
def test_the_gate_is_not_skipped_because_it_is_not_known_what_serves(world, now, artifact, metrics_with, host):
    world.policy = load_policy("never")
    record = judged_beside(world, now, artifact, metrics_with, host)
    assert record.status is JobStatus.SUCCEEDED, "it waits"
    assert "not known what serves" in record.waits["gate"]
    assert world.host("azure").version == "base"
    del world.host().state
    assert training_finished(world.deps(), JOB, now + 80).status is JobStatus.REJECTED


def test_a_split_of_the_traffic_is_the_largest_share_and_the_persons_own(world, now, artifact, metrics_with):
    world.policy = load_policy("never")
    record = judged_beside(world, now, artifact, metrics_with, lambda: HostState("base", "http://aws.memory"))
    assert record.status is JobStatus.REJECTED
    assert world.host().deployed == []


def test_where_nothing_ever_served_the_first_model_is_taken(world, now, artifact):
    for cloud in ("aws", "azure"):
        world.host(cloud).version = None
    world.policy = load_policy("never")
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB, serving=None))
    record = training_finished(world.deps(), JOB, now + 20)
    assert record.status is JobStatus.LIVE and "nothing serves yet" in record.reason


# --- refusals


@pytest.mark.parametrize(
    "error", [RefusedError("SageMaker", "ResourceLimitExceeded: 0 instances"), NotFoundError("role")]
)
def test_a_training_service_that_refuses_for_good_ends_the_job_at_once_in_its_words(world, now, error):
    def start(*_):
        raise error

    world.training().start = start
    assert start_training(world.deps(), world.message(), now) is Outcome.REFUSED
    record = world.state().job(JOB).record
    assert (record.status, record.cause, record.cost_usd) == (JobStatus.FAILED, "refused", 0.0)
    assert str(error) in record.reason
    decision = tick(world.deps(), now + 60)
    assert decision.action is Action.RETRAIN_AZURE, "without a cooldown: nothing is wrong with the model"
    assert str(error)[:40] in decision.conditions["aws training"]


def test_both_clouds_refusing_is_a_hold_with_both_reasons(world, now):
    def start(*_):
        raise RefusedError("training", "quota")

    for cloud in ("aws", "azure"):
        world.training(cloud).start = start
    decision = slots(world, now, 6)
    assert decision.action is Action.HOLD
    assert set(decision.conditions) == {"aws training", "azure training"}
    records = [r for cloud in ("aws", "azure") for r in world.state(cloud).jobs("qa").records]
    assert len(records) == 2, "each was tried once, not in every slot"


def test_a_queue_that_is_missing_ends_the_job_and_the_other_cloud_is_next(world, now):
    def enqueue(job):
        raise NotFoundError("queue opportune-retrain does not exist")

    world.queue().enqueue = enqueue
    tick(world.deps(), now)
    record = world.state().job(JOB).record
    assert record.status is JobStatus.FAILED and "opportune-retrain does not exist" in record.reason
    slots(world, now, 1)
    assert len(world.training("azure").started) == 1


def test_a_training_service_away_for_minutes_gets_its_job_all_the_same(world, now):
    def away(*_):
        raise UnavailableError("SageMaker", "HTTP 503")

    real, world.training().start = world.training().start, away
    tick(world.deps(), now)
    (message,) = world.queue().messages
    for delivery in range(5):
        with pytest.raises(UnavailableError):
            start_training(world.deps(), message, now + 30 * delivery)
    world.queue().messages.clear()  # poisoned after five deliveries
    assert "HTTP 503" in world.state().job(JOB).record.waits["training service"]
    world.training().start = real
    slots(world, now + 150, 4)
    assert [job.job_id for job, _, _ in world.training().started] == [JOB]


@pytest.mark.parametrize("error", [RefusedError("SageMaker", "AccessDenied"), UnavailableError("Azure ML", "unknown")])
def test_a_job_about_which_nothing_can_be_learnt_ends_with_the_last_error(world, now, error):
    world.policy = load_policy("never")
    start_training(world.deps(), world.message(), now)

    def status(job_id):
        raise error

    world.training().status = status
    tick(world.deps(), now + 60)
    assert str(error) in world.state().job(JOB).record.waits["training service"]
    tick(world.deps(), now + 7300)
    record = world.state().job(JOB).record
    assert record.status is JobStatus.FAILED and str(error) in record.reason


# --- capacity and cost


def spot(state, reason, capacity=False, **times):
    return TrainingStatus(
        state, reason, times.get("started_s"), times.get("finished_s"), times.get("billed_s"), capacity
    )


def test_a_spot_job_that_nobody_had_a_machine_for_costs_nothing_and_is_no_failure_of_the_model(world, now):
    start_training(world.deps(), world.message(), now)
    world.training()._statuses[JOB] = spot("running", "Waiting for capacity")
    world.policy = load_policy("never")
    tick(world.deps(), now + 60)
    assert world.state().job(JOB).record.waits == {"training service": "Waiting for capacity"}
    world.training()._statuses[JOB] = spot("stopped", "MaxWaitTimeExceeded", capacity=True, finished_s=now + 120)
    tick(world.deps(), now + 120)
    record = world.state().job(JOB).record
    assert (record.status, record.cause, record.cost_usd, record.started_s) == (JobStatus.FAILED, "capacity", 0.0, None)
    assert record.reason == "waited for capacity: MaxWaitTimeExceeded"
    world.policy = load_policy("always")
    assert tick(world.deps(), now + 180).action is Action.RETRAIN_AZURE


def test_what_the_service_bills_is_what_is_counted(world, now):
    start_training(world.deps(), world.message(), now)
    world.training()._statuses[JOB] = spot(
        "failed", "AlgorithmError", started_s=now, finished_s=now + 3600, billed_s=900.0
    )
    assert training_finished(world.deps(), JOB, now + 3600).cost_usd == pytest.approx(0.25 * 0.736)


def test_a_start_without_a_machine_is_tried_on_the_other_cloud(world, now):
    def start(*_):
        raise CapacityError("SageMaker", "InsufficientCapacity")

    world.training().start = start
    assert start_training(world.deps(), world.message(), now) is Outcome.REFUSED
    assert world.state().job(JOB).record.cause == "capacity"
    assert tick(world.deps(), now + 60).action is Action.RETRAIN_AZURE


# --- deployments


@pytest.fixture
def trained(world, now, artifact):
    world.policy = load_policy("never")
    tick(world.deps(), now - 60)
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB), started_s=now, finished_s=now + 10)
    return world


def test_a_refused_deployment_marks_that_endpoint_alone_and_is_not_repeated(trained, now):
    asked = []

    def deploy(version):
        asked.append(version)
        raise RefusedError("Azure ML", "OutOfQuota: Standard_F4s_v2")

    trained.host("azure").deploy = deploy
    for slot in range(1, 62):
        tick(trained.deps(), now + 60 * slot)
    assert len(asked) == 1
    record = trained.state().job(JOB).record
    assert record.status is JobStatus.LIVE and "OutOfQuota" in record.reason
    table = trained.state("azure").routes("qa")
    assert table.scheduler == "aws" and table.heartbeat_s == now + 60 * 61, "the cloud itself is not silent"
    assert {e.cloud: e.model_version for e in table.endpoints} == {"aws": record.model_version, "azure": "base"}


def test_an_endpoint_that_failed_is_routed_around_and_named(world, now):
    world.policy = load_policy("never")
    tick(world.deps(), now)
    world.host("azure").state = lambda: HostState("base", "http://azure.memory", healthy=False, reason="it is Failed")
    decision = tick(world.deps(), now + 60)
    assert decision.conditions["azure endpoint"] == "it is Failed"
    assert {e.cloud: e.healthy for e in world.state().routes("qa").endpoints} == {"aws": True, "azure": False}


# --- who leads


def test_a_leader_that_cannot_write_here_is_not_silent(world, now):
    world.policy = load_policy("never")
    for slot in range(10):
        tick(world.deps("aws"), now + 60 * slot)
    stale = msgspec.structs.replace(world.state("azure").routes("qa"), heartbeat_s=now)
    world.clouds["azure"].documents.put("routes", "qa", msgspec.json.encode(stale))
    assert tick(world.deps("azure"), now + 600) is None, "its heartbeat is fresh in its own cloud"


def test_the_heartbeat_says_what_was_done(world, now):
    world.policy = load_policy("never")
    decision = tick(world.deps(), now)
    assert world.state("azure").routes("qa").decided == decision.decision_id

    class NoDecisions(MemoryDocuments):
        def put(self, kind, *args, **kwargs):
            if kind == "decision":
                raise UnavailableError("table", "no more writes")
            return super().put(kind, *args, **kwargs)

    for cloud in ("aws", "azure"):
        broken = NoDecisions()
        broken._documents = world.clouds[cloud].documents._documents
        replaced(world, cloud, documents=broken)
    assert tick(world.deps(), now + 60) is None
    assert world.state("azure").routes("qa").heartbeat_s == now, "so that the other one takes over"


# --- documents of other programs


KINDS = {"job": "qa-20270115t075500", "routes": "qa", "control": "qa", "tally": "qa", "lock": "qa"}


@pytest.mark.parametrize("cloud", ["aws", "azure"])
@pytest.mark.parametrize("kind", [*KINDS, "decision", "this slot's decision"])
@pytest.mark.parametrize("body", [b"{oops", b'{"version": 99}', b"\xff\xfe", b"[]", b"[" * 100_000])
def test_a_document_nobody_here_can_read_stops_neither_ticks_nor_starts(world, now, cloud, kind, body):
    message = world.message("azure" if cloud == "aws" else "aws", job_id="qa-20270115t075900", slot_s=now - 60)
    world.queue("aws").messages.clear()
    key = {"decision": "decision-qa-20270115t075800", "this slot's decision": f"decision-{JOB}"}.get(kind) or KINDS[
        kind
    ]
    world.clouds[cloud].documents.put(kind.rpartition(" ")[2], key, body)
    other = "azure" if cloud == "aws" else "aws"
    decision = tick(world.deps(), now)
    if kind == "this slot's decision" and b"99" in body:
        assert decision is None, "a newer program decided it"
    else:
        assert world.state(other).decision(f"decision-{JOB}") == decision
        assert world.state(other).routes("qa").heartbeat_s == now
    outcome = start_training(world.deps(other), message, now + 1)
    assert outcome in (Outcome.STARTED, Outcome.REFUSED)
    if kind in ("routes", "lock") and b"99" in body:
        assert world.clouds[cloud].documents.get(kind, key).body == body or kind == "lock", "never overwritten"
    assert tick(world.deps(), now + 60) is not None


# --- messages


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deadline_s", 86_400.0),
        ("cost_ceiling_usd", 1e6),
        ("data_start_s", 0.0),
        ("data_end_s", 1.9e9),
        ("slot_s", 1.0),
        ("trace_id", "b" * 32),
        ("job_id", "qa-other"),
        ("service", "other"),
        ("decision_id", "decision-qa-none"),
        ("hyperparameters", {"base_model": "mine"}),
    ],
)
def test_a_message_that_says_otherwise_than_the_recorded_decision_does_not_start(world, now, field, value):
    forged = json.loads(world.message()) | {field: value}
    assert start_training(world.deps(), json.dumps(forged), now) is Outcome.DEAD_LETTERED
    assert not world.training().started
    assert (
        field.replace("hyperparameters", "base_model") in world.queue().dead[0][1]
        or "decision" in world.queue().dead[0][1]
    )


def test_a_decision_to_hold_starts_nothing_whatever_the_message_says(world, now):
    world.policy = load_policy("never")
    decision = tick(world.deps(), now)
    forged = json.loads(world.message(job_id="qa-x", decision_id="decision-qa-x")) | {
        "decision_id": decision.decision_id
    }
    assert start_training(world.deps(), json.dumps(forged), now) is Outcome.DEAD_LETTERED


def test_a_message_waits_while_the_cloud_that_has_its_decision_does_not_answer(world, now):
    message = world.message("azure")
    real = world.clouds["azure"].documents

    class Down(MemoryDocuments):
        def get(self, kind, key):
            if kind == "decision":
                raise UnavailableError("table", "timed out")
            return real.get(kind, key)

    replaced(world, "azure", documents=Down())
    with pytest.raises(UnavailableError, match="timed out"):
        start_training(world.deps("azure"), message, now)
    assert not world.queue("azure").dead, "it comes again"


@pytest.mark.parametrize(
    "raw",
    [
        "[" * 30_000,
        '{"slot_s": ' + "9" * 5_000 + "}",
        '{"decision_id": "' + "x" * 2_000 + '"}',
        "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
def test_rubbish_of_any_kind_is_dead_lettered_with_a_reason(world, now, raw):
    assert start_training(world.deps(), raw, now) is Outcome.DEAD_LETTERED
    assert world.queue().dead[0][1]


# --- artifacts


@pytest.mark.parametrize("raw", [b"", b"\0" * 500, b"{oops", b"[" * 200_000, b'{"version": 99}'])
def test_a_damaged_manifest_is_unusable_and_later_ticks_go_on(world, now, artifact, raw):
    world.policy = load_policy("never")
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB) | {"manifest.json": raw})
    for slot in (1, 2):
        assert tick(world.deps(), now + 60 * slot) is not None
    record = world.state().job(JOB).record
    assert record.status is JobStatus.FAILED and "unusable" in record.reason


# --- settings


def test_a_service_name_too_long_for_its_jobs_is_refused_at_start():
    assert Settings.from_env({"OPPORTUNE_SERVICE": "s" * 47}).service
    with pytest.raises(ConfigurationError, match="at most 47 characters"):
        Settings.from_env({"OPPORTUNE_SERVICE": "s" * 48})


def test_everything_a_record_may_say_is_read_back(world, now):
    start_training(world.deps(), world.message(), now)
    record = world.state().job(JOB).record
    full = msgspec.structs.replace(
        record, waits={"gate": "x"}, refused={"aws": "y"}, asked={"aws": 2}, asked_s={"aws": 1.0}
    )
    assert decode(type(record), msgspec.json.encode(full)) == full
    assert dataclasses.is_dataclass(world.deps()) and Control(False, "").stopped_jobs == ()
