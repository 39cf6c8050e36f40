"""A slot's plan, from a view put together by hand: no cloud, no clock, to the second."""

import dataclasses
from typing import Any

import msgspec
import pytest

from functions.scheduling.plan import plan_slot, unavailable
from functions.scheduling.view import CloudView, JobView, View
from policy.decide import load_policy
from shared.contracts import Action, Endpoint, JobRecord, JobStatus, RouteTable
from shared.records import Control, Held, JobTotals, Unread, Unreadable
from shared.settings import Settings
from shared.values import HostState, TrainingStatus
from tests.functions.conftest import NOW, metric_window

ALWAYS = load_policy("always")
SILENT = Unread("timed out after 8 s")
RUNNING = TrainingStatus("running", "", NOW - 30, None)
SETTINGS = Settings(job_deadline_seconds=600.0)
BOTH = (
    Endpoint(cloud="aws", url="http://aws", model_version="m1"),
    Endpoint(cloud="azure", url="http://azure", model_version="m2"),
)


def cloud(name: str, **changes: Any) -> CloudView:
    """A cloud on which the base model serves."""
    return dataclasses.replace(CloudView(name, host=HostState("base", f"http://{name}")), **changes)  # type: ignore[arg-type]


def silent(name: str) -> CloudView:
    return CloudView(name, documents=SILENT, recent=SILENT, retrains=SILENT, host=SILENT)  # type: ignore[arg-type]


def view(*clouds: CloudView, now_s: float = NOW, settings: Settings = SETTINGS) -> View:
    seen = {name: cloud(name) for name in ("aws", "azure")} | {one.cloud: one for one in clouds}
    return View(settings, now_s, NOW, "a" * 32, "b" * 32, seen, metric_window(NOW), {})  # type: ignore[arg-type]


@pytest.fixture
def record(job):
    """A function: a job's state and its cloud -> its record, decided ten minutes ago."""

    def make(status, on="aws", job_id="qa-20270115t075000", job_changes=None, **changes):
        told = job(job_id=job_id, cloud=on, **{"slot_s": NOW - 600.0} | (job_changes or {}))
        return JobRecord(job=told, status=status, **{"updated_s": NOW - 600.0} | changes)

    return make


@pytest.fixture
def with_job(record):
    """A function: as `record`, and what its training service says -> a cloud with that job in flight."""

    def make(status, told=None, on="aws", **changes):
        found = record(status, on, **changes)
        return cloud(on, recent=(found,), open_jobs=(JobView(Held(found, "1"), told),))

    return make


@pytest.fixture
def earlier(a_decision):
    """A function: where to and how many seconds ago -> a retrain that was decided then and that nobody claimed."""

    def make(on="aws", ago_s=60.0, **changes):
        plain = {"job_id": "qa-20270115t075900", "decision_id": "decision-qa-20270115t075900", "slot_s": NOW - ago_s}
        return a_decision(Action.for_cloud(on), **plain | changes)

    return make


def table(**changes: Any) -> RouteTable:
    plain: dict[str, Any] = {"epoch": 3, "published_s": 0.0, "scheduler": "aws", "heartbeat_s": 0.0, "endpoints": BOTH}
    return RouteTable(service="qa", trace_id="c" * 32, **plain | changes)


# --- messages of earlier slots


def test_a_retrain_that_nobody_claimed_is_sent_again_until_its_deadline(earlier):
    def sent(ago_s):
        return [m.job_id for m in plan_slot(view(cloud("aws", retrains=(earlier(ago_s=ago_s),))), ALWAYS).messages]

    assert [ago for ago in range(60, 601, 60) if sent(float(ago))] == [60, 120, 240, 480], "ever more seldom"
    assert sent(480.0) == ["qa-20270115t075900"]
    assert sent(600.1) == [], "whoever got it now would refuse it"


def test_until_then_it_is_in_flight_whichever_cloud_knows_of_it(earlier):
    told = earlier("azure")
    plan = plan_slot(view(cloud("aws", retrains=(told,)), cloud("azure", retrains=(told,))), ALWAYS)
    assert [(m.job_id, m.cloud, m.parent_version) for m in plan.messages] == [(told.job_id, "azure", "base")]
    assert plan.decision.action is Action.HOLD
    assert f"job {told.job_id} on azure is claimed" in plan.decision.reason
    (claimed,) = plan.jobs
    assert claimed.updated_s == told.slot_s


@pytest.mark.parametrize(
    "changes",
    [{"service": "qb"}, {"ago_s": 0.0}, {"job_id": None}, {"job_id": "qa-20270115t075000"}],
    ids=["another service's", "this very slot's", "without a job", "claimed"],
)
def test_what_is_sent_again_is_only_what_is_this_services_and_lost(earlier, record, changes):
    known = record(JobStatus.LIVE)
    plan = plan_slot(view(cloud("aws", retrains=(earlier(**changes),), recent=(known,))), ALWAYS)
    assert plan.messages == ()


def test_nothing_is_sent_to_a_cloud_that_does_not_say_what_it_knows(earlier):
    told = earlier("azure")
    assert plan_slot(view(cloud("aws", retrains=(told,)), silent("azure")), ALWAYS).messages == ()
    alone = dataclasses.replace(view(), clouds={"aws": cloud("aws", retrains=(told,))})
    assert plan_slot(alone, ALWAYS).messages == (), "a cloud that is configured no more"


def test_without_a_policy_nothing_is_decided_or_sent(earlier, with_job):
    waiting = with_job(JobStatus.CLAIMED)
    plan = plan_slot(view(dataclasses.replace(waiting, retrains=(earlier(),))), None)
    assert (plan.decision, plan.messages, plan.resent, plan.heartbeat) == (None, (), (), None)
    assert plan.routes is not None, "what the endpoints serve is published all the same"


@pytest.mark.parametrize("how", ["paused", "watch"])
def test_a_held_service_ends_what_was_decided_and_not_begun(earlier, how):
    settings = msgspec.structs.replace(SETTINGS, mode="watch") if how == "watch" else SETTINGS
    control = Control(paused=how == "paused", reason="freeze")
    plan = plan_slot(view(cloud("aws", retrains=(earlier(),), control=control), settings=settings), ALWAYS)
    assert plan.messages == ()
    (voided,) = plan.voided
    assert (voided.status, voided.updated_s) == (JobStatus.STOPPED, NOW)
    assert ("freeze" if how == "paused" else "watch mode") in voided.reason


def test_a_claimed_job_that_nobody_started_gets_its_message_again_after_three_slots(with_job):
    def resent(told=None, now_s=NOW, status=JobStatus.CLAIMED, control=None, **changes):
        seen = dataclasses.replace(with_job(status, told, **changes), control=control)
        return [(on, held.record.job.job_id) for on, held in plan_slot(view(seen, now_s=now_s), ALWAYS).resent]

    young = {"job_changes": {"slot_s": NOW - 240}}
    assert resent(updated_s=NOW - 180, **young) == [("aws", "qa-20270115t075000")]
    assert resent(updated_s=NOW - 179, **young) == []
    assert resent(updated_s=NOW - 500, sent_s=NOW - 179, **young) == [], "it was sent again a moment ago"
    assert resent(updated_s=NOW - 500, sent_s=NOW - 180, **young) != []
    assert resent(RUNNING, updated_s=NOW - 500, **young) == [], "it runs"
    assert resent(SILENT, updated_s=NOW - 500, **young) == [], "it may run"
    assert resent(updated_s=NOW - 500, status=JobStatus.TRAINING, **young) == []
    assert resent(updated_s=NOW - 500, control=Control(paused=True, reason="freeze"), **young) == []


def test_a_claimed_job_past_its_deadline_ends_instead(with_job):
    plan = plan_slot(view(with_job(JobStatus.CLAIMED, job_changes={"slot_s": NOW - 3601})), ALWAYS)
    assert plan.resent == ()
    ((on, held, step),) = [(s.cloud, s.held, s.step) for s in plan.steps]
    assert (on, held.etag, step.record.status) == ("aws", "1", JobStatus.FAILED)
    assert [r.status for r in plan.jobs] == [JobStatus.FAILED], "the decision is made on what becomes of it"


# --- jobs in flight


def test_an_accepted_job_waits_for_the_endpoints_unless_it_moves(with_job):
    loading = with_job(JobStatus.ACCEPTED, model_version="m1", finished_s=NOW - 60)
    assert [h.record.model_version for h in plan_slot(view(loading), ALWAYS).waiting] == ["m1"]
    assert plan_slot(view(with_job(JobStatus.TRAINING, RUNNING)), ALWAYS).waiting == ()
    served = dataclasses.replace(loading, host=HostState("m1", "http://aws"))
    done = plan_slot(view(served, cloud("azure", host=HostState("m1", "http://azure"))), ALWAYS)
    assert done.waiting == () and [s.step.record.status for s in done.steps] == [JobStatus.LIVE]


def test_a_job_that_a_person_ends_in_one_cloud_ends_in_the_other(with_job):
    control = Control(paused=False, reason="", stopped_jobs=("qa-20270115t075000",))
    plan = plan_slot(view(with_job(JobStatus.TRAINING, RUNNING, on="azure"), cloud("aws", control=control)), ALWAYS)
    assert [(s.cloud, s.step.record.status, s.step.stop) for s in plan.steps] == [("azure", JobStatus.STOPPED, True)]


def test_the_last_change_of_the_operator_switch_counts(with_job):
    late = with_job(JobStatus.SUCCEEDED, finished_s=NOW - 4000)
    assert [s.step.record.status for s in plan_slot(view(late), ALWAYS).steps] == [JobStatus.FAILED]
    clouds = (
        dataclasses.replace(late, control=Control(paused=False, reason="", changed_s=NOW - 60)),
        cloud("azure", control=Control(paused=False, reason="", changed_s=NOW - 9000)),
    )
    assert plan_slot(view(*clouds), ALWAYS).steps == (), "its time began when it was resumed"


def test_a_switch_that_no_cloud_shows_holds_everything_and_one_that_shows_it_is_enough(earlier):
    unreadable = Unreadable("control", "qa", "no JSON", newer=False)
    none = plan_slot(view(cloud("aws", control=unreadable, retrains=(earlier(),)), silent("azure")), ALWAYS)
    assert none.messages == () and "the operator switch cannot be read" in none.around.held
    one = plan_slot(view(cloud("aws", retrains=(earlier(),)), silent("azure")), ALWAYS)
    assert one.around.held is None and len(one.messages) == 1


# --- decisions


def test_a_slot_is_decided_once_and_the_own_record_of_it_counts(a_decision):
    ours, theirs = a_decision(decision_id="decision-ours"), a_decision(decision_id="decision-theirs")
    both = plan_slot(view(cloud("aws", decision=ours), cloud("azure", decision=theirs)), ALWAYS)
    assert (both.settled, both.decision) == (ours, None)
    other = plan_slot(view(cloud("azure", decision=theirs)), ALWAYS)
    assert (other.settled, other.decision) == (theirs, None)
    fresh = plan_slot(view(), ALWAYS)
    assert fresh.settled is None and fresh.decision.action is Action.RETRAIN_AWS


def test_what_a_newer_program_decided_is_left_to_it_and_a_damaged_record_is_not(a_decision):
    newer, damaged = (Unreadable("decision", "d", "?", newer=n) for n in (True, False))
    assert plan_slot(view(cloud("azure", decision=newer)), ALWAYS).decision is None
    assert plan_slot(view(cloud("azure", decision=damaged)), ALWAYS).decision is not None


def test_a_decision_says_what_could_not_be_read_within_bounds():
    azure = dataclasses.replace(silent("azure"), skipped=tuple(f"document {n}: {'x' * 400}" for n in range(40)))
    decision = plan_slot(view(azure), ALWAYS).decision
    assert decision.conditions["azure documents"] == SILENT.reason
    assert len(decision.conditions) == 20
    assert max(map(len, decision.conditions.values())) == 300
    few = plan_slot(view(silent("azure")), ALWAYS).decision.conditions
    assert few["azure training"] == f"it does not answer: {SILENT.reason}"
    assert plan_slot(view(), ALWAYS).decision.conditions == {}


def test_a_cloud_that_is_not_configured_trains_nothing_and_is_no_condition():
    alone = dataclasses.replace(view(), clouds={"aws": cloud("aws")})
    assert unavailable(alone, ()) == {"azure": "not configured"}
    assert plan_slot(alone, ALWAYS).decision.conditions == {}


def test_a_cloud_that_refused_its_last_job_gets_none_until_a_deadline_later(record):
    def told(*jobs):
        return unavailable(view(), jobs)

    refused = record(JobStatus.FAILED, updated_s=NOW - 599.0, cause="refused", reason="AccessDenied")
    assert told(refused) == {"aws": "job qa-20270115t075000 ended there: AccessDenied"}
    assert told(msgspec.structs.replace(refused, updated_s=NOW - 600.0)) == {}
    assert told(msgspec.structs.replace(refused, cause="")) == {}, "the model failed, not the cloud"
    later = record(JobStatus.LIVE, updated_s=NOW - 10.0)
    assert told(refused, later) == {}, "its last job went well"
    assert list(told(refused, record(JobStatus.LIVE, "azure", updated_s=NOW - 10.0))) == ["aws"]
    assert list(told(refused, record(JobStatus.TRAINING, updated_s=NOW - 10.0))) == ["aws"], "that one has not ended"


# --- what a retrain starts from


def test_a_retrain_starts_from_what_serves_and_from_what_served_where_that_is_unknown():
    def parents(aws, *others, **changes):
        return plan_slot(view(cloud("aws", host=aws, **changes), *others), ALWAYS).parents["aws"]

    assert parents(HostState("m7", "http://aws")) == "m7"
    assert parents(HostState(None, "")) == "base", "nothing ever served"
    assert parents(SILENT, routes=table()) == "m1", "that cloud's, as it was last published"
    assert parents(SILENT) == SILENT
    assert parents(HostState(None, "", reason="being made again"), routes=table()) == "m1"
    azure_only = msgspec.structs.replace(table(), endpoints=table().endpoints[1:])
    assert parents(SILENT, routes=azure_only) == SILENT, "the other cloud's is none of its own"
    assert parents(HostState(None, ""), routes=azure_only) == "base"


def test_an_unknown_parent_holds_the_message_back_but_the_job_is_in_flight(earlier):
    unknown = cloud("aws", host=SILENT, retrains=(earlier(),))
    plan = plan_slot(view(unknown), ALWAYS)
    assert plan.messages == ()
    assert plan.decision.action is Action.HOLD


def test_once_a_model_went_live_an_endpoint_without_one_is_not_new(record):
    nothing = cloud("aws", host=HostState(None, "", reason="deleted"), recent=(record(JobStatus.LIVE),))
    assert plan_slot(view(nothing), ALWAYS).parents["aws"] == Unread("deleted")
    failed = dataclasses.replace(nothing, recent=(record(JobStatus.FAILED),))
    assert plan_slot(view(failed), ALWAYS).parents["aws"] == "base"
    passed = dataclasses.replace(nothing, recent=(), totals=JobTotals(last_live=record(JobStatus.LIVE)))
    assert plan_slot(view(passed), ALWAYS).parents["aws"] == Unread("deleted"), "also one of long ago"


# --- routes


def test_the_routes_carry_the_trace_of_the_newest_release(record):
    def trace(*jobs):
        return plan_slot(view(cloud("aws", recent=jobs)), ALWAYS).routes.trace_id

    old, new, over = (
        record(s, job_id=f"qa-{n}", job_changes={"slot_s": float(n), "trace_id": str(n) * 32}, model_version="m1")
        for n, s in enumerate((JobStatus.LIVE, JobStatus.ACCEPTED, JobStatus.REJECTED))
    )
    assert trace() == "b" * 32
    assert trace(old, new, over) == "1" * 32
    assert trace(old, over) == "0" * 32
    assert trace(over) == "b" * 32


def test_only_a_recorded_decision_makes_a_table_the_heartbeat():
    settled = table(endpoints=(), epoch=0)
    plan = plan_slot(view(cloud("aws", routes=settled, etags={"routes": "7"})), ALWAYS)
    assert (plan.heartbeat.decided, plan.heartbeat.heartbeat_s) == ("decision-qa-20270115t080000", NOW)
    assert plan.routes.heartbeat_s == 0.0
    assert plan.last_routes == settled
    assert plan.route_tags == {"aws": "7", "azure": None}


def test_routes_that_a_newer_program_wrote_are_not_overwritten_and_damaged_ones_are():
    newer, damaged = (cloud("azure", routes=Unreadable("routes", "qa", "?", newer=n)) for n in (True, False))
    assert set(plan_slot(view(newer), ALWAYS).route_tags) == {"aws"}
    assert set(plan_slot(view(damaged), ALWAYS).route_tags) == {"aws", "azure"}
