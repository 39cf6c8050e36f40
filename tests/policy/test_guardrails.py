"""What holds a retrain back, to the dollar and to the second, and what the record says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from policy.guardrails import Facts, apply, consecutive_failures, longest_cooldown_slots
from shared.contracts import Action, Guardrail, JobRecord, JobStatus
from shared.settings import Settings

MIDNIGHT = 86_400.0 * 20_000
NOON = MIDNIGHT + 43_200.0
#: a job costs 2 $/h for half an hour: one dollar
DOLLAR = Settings(
    price_usd_per_hour_aws=2.0,
    train_hours_aws=0.5,
    price_usd_per_hour_azure=8.0,
    train_hours_azure=0.5,
    budget_usd_per_day=10.0,
    cooldown_slots=5.0,
    slot_seconds=60.0,
)

Told = tuple[Action, list[Guardrail]]


@pytest.fixture
def told() -> Callable[..., Told]:
    """A function: the jobs so far and what else is so -> what is left of a wish to retrain on AWS, and why."""

    def make(*jobs: JobRecord, wanted: Action = Action.RETRAIN_AWS, now_s: float = NOON, **changes: Any) -> Told:
        settings = msgspec.structs.replace(DOLLAR, **changes.pop("settings", {}))
        facts = Facts.of(settings, now_s, jobs, changes.get("unavailable", {}), changes.get("paused"))
        return apply(wanted, facts)

    return make


def names(told: Told) -> list[str]:
    return [guard.name for guard in told[1]]


def test_the_budget_may_be_spent_to_the_last_cent(told: Any, record: Any) -> None:
    nine = record(JobStatus.LIVE, MIDNIGHT + 60, MIDNIGHT + 600, cost_usd=9.0)
    assert told(nine)[0] is Action.RETRAIN_AWS
    more = record(JobStatus.LIVE, MIDNIGHT + 60, MIDNIGHT + 600, cost_usd=9.01)
    action, (guard,) = told(more)
    assert (action, guard.name) == (Action.HOLD, "budget")
    assert guard.reason == "$9.01 spent today and $1.00 for this job exceed the budget of $10.00 a day"


def test_the_day_of_the_budget_begins_at_midnight_utc(told: Any, record: Any) -> None:
    spent = {"updated_s": MIDNIGHT + 3600, "cost_usd": 9.5}
    assert names(told(record(JobStatus.LIVE, MIDNIGHT, **spent))) == ["budget"]
    assert names(told(record(JobStatus.LIVE, MIDNIGHT - 60, **spent))) == []
    late = record(JobStatus.LIVE, MIDNIGHT, **spent)
    assert names(told(late, now_s=MIDNIGHT + 86_399)) == ["budget"], "it is one day long"
    assert names(told(late, now_s=MIDNIGHT + 86_400)) == [], "and not longer"


def test_the_cooldown_ends_to_the_second(told: Any, record: Any) -> None:
    ended = record(JobStatus.LIVE, NOON - 900, NOON - 299, cost_usd=0.0)
    action, (guard,) = told(ended)
    assert (action, guard.name) == (Action.HOLD, "cooldown")
    assert guard.reason == "the last job ended 299 s ago; the cooldown is 300 s"
    assert names(told(record(JobStatus.LIVE, NOON - 900, NOON - 300, cost_usd=0.0))) == []


def test_a_job_that_its_cloud_refused_costs_no_cooldown(told: Any, record: Any) -> None:
    refused = msgspec.structs.replace(record(JobStatus.FAILED, NOON - 60, NOON - 30, cost_usd=0.0), cause="refused")
    assert names(told(refused)) == []
    failed = [record(JobStatus.FAILED, NOON - 60, NOON - 400 - k, cost_usd=0.0) for k in (0, 100)]
    assert consecutive_failures([failed[0], refused, failed[1]]) == 2, "it neither counts nor ends the row"
    assert names(told(failed[0], refused, failed[1])) == ["cooldown"], "ten slots after two failures"


def test_the_cooldown_grows_to_64_times_and_no_further(told: Any, record: Any) -> None:
    assert longest_cooldown_slots(DOLLAR) == 5 * 64
    for failures, slots in ((1, 5), (2, 10), (3, 20), (6, 160), (7, 320), (8, 320), (30, 320)):
        jobs = [record(JobStatus.FAILED, 0.0, NOON - 60 * slots - k, cost_usd=0.0) for k in range(failures)]
        assert names(told(*jobs)) == [], f"{failures} failures, {slots} slots"
        assert names(told(*jobs, now_s=NOON - 1)) == ["cooldown"], f"{failures} failures, a second less"


def test_only_the_latest_row_of_failures_counts(record: Any) -> None:
    def ended(*statuses: JobStatus) -> list[JobRecord]:
        return [record(status, 0.0, float(k)) for k, status in enumerate(statuses)]

    assert consecutive_failures([]) == 0
    assert consecutive_failures(ended(JobStatus.FAILED, JobStatus.LIVE)) == 0
    assert consecutive_failures(ended(JobStatus.FAILED, JobStatus.FAILED, JobStatus.LIVE, JobStatus.REJECTED)) == 1
    assert consecutive_failures(ended(JobStatus.FAILED, JobStatus.TRAINING)) == 1, "one in flight says nothing yet"


def test_the_first_job_in_flight_is_named(told: Any, record: Any) -> None:
    jobs = [record(JobStatus.TRAINING, NOON - 60, NOON, job_id=name) for name in ("qa-1", "qa-2")]
    (guard,) = told(*jobs)[1]
    assert guard.reason == "job qa-1 on aws is training; one job at a time"


def test_the_other_cloud_trains_instead_if_its_price_is_within_the_budget(told: Any, record: Any) -> None:
    out = {"unavailable": {"aws": "no machine"}}
    action, (guard,) = told(**out)
    assert action is Action.RETRAIN_AZURE
    assert guard == Guardrail(
        name="cloud-unavailable",
        before=Action.RETRAIN_AWS,
        after=Action.RETRAIN_AZURE,
        reason="aws cannot train now (no machine); azure trains instead",
    )
    spent = record(JobStatus.LIVE, MIDNIGHT, MIDNIGHT + 600, cost_usd=6.5)
    action, guards = told(spent, **out)
    assert action is Action.HOLD
    assert [(g.name, g.before, g.after) for g in guards] == [
        ("cloud-unavailable", Action.RETRAIN_AWS, Action.RETRAIN_AZURE),
        ("budget", Action.RETRAIN_AZURE, Action.HOLD),
    ]
    assert "$4.00 for this job" in guards[1].reason, "what Azure would cost"


def test_no_cloud_left_to_train_is_a_hold(told: Any) -> None:
    action, (guard,) = told(unavailable={"aws": "no machine", "azure": "no answer"})
    assert action is Action.HOLD
    assert guard.reason == "aws cannot train now (no machine), nor can the other cloud"
    assert told(unavailable={"azure": "no answer"}) == (Action.RETRAIN_AWS, []), "the wanted one can"


def test_a_policy_sees_which_clouds_can_train() -> None:
    def allowed(**unavailable: str) -> tuple[bool, bool]:
        return Facts.of(DOLLAR, NOON, (), unavailable, None).allowed()  # type: ignore[arg-type]

    assert allowed() == (True, True)
    assert allowed(aws="no machine") == (False, True)
    assert allowed(azure="no machine") == (True, False)


def test_the_first_reason_is_the_operators_and_a_hold_needs_none(told: Any, record: Any) -> None:
    running = record(JobStatus.TRAINING, NOON - 60, NOON)
    action, (guard,) = told(running, paused="deploy freeze", settings={"mode": "watch"})
    assert (action, guard.name, guard.reason) == (Action.HOLD, "paused", "retraining is paused: deploy freeze")
    assert told(running, paused="deploy freeze", wanted=Action.HOLD) == (Action.HOLD, [])


def test_watching_is_what_stops_a_retrain_that_nothing_else_would(told: Any) -> None:
    action, (guard,) = told(settings={"mode": "watch"})
    assert (action, guard.name, guard.before) == (Action.HOLD, "watch", Action.RETRAIN_AWS)
