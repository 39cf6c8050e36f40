"""One tick, end to end without a network: what is done, and the reason an operator reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import msgspec
import pytest

from policy.decide import DecisionContext, decide, load_policy
from shared.contracts import Action, JobRecord, JobStatus, MetricWindow, Series, decode, encode
from shared.contracts import Decision as DecisionRecord
from shared.errors import MetricsError, MetricsUnavailableError
from shared.settings import Settings

NOW = 1_700_000_040.0
STEP = 60.0
SETTINGS = Settings(slot_seconds=STEP)


def window(quality: list[float], **changed: Series) -> MetricWindow:
    times = tuple(NOW - STEP * (len(quality) - 1 - k) for k in range(len(quality)))
    flat = {"cpu": 0.4, "memory": 0.5, "request_rate": 3.0, "latency": 0.08}
    series = {name: Series(times, (value,) * len(times)) for name, value in flat.items()}
    series |= {"bleu": Series(times, tuple(quality)), "accuracy": Series(times, tuple(quality))}
    series |= changed
    return MetricWindow(service="qa", start_s=times[0], end_s=NOW, step_s=STEP, series=series)


def context(**changed: object) -> DecisionContext:
    base = DecisionContext(settings=SETTINGS, now_s=NOW, slot_s=NOW, trace_id="0" * 32)
    return dataclasses.replace(base, **changed)  # type: ignore[arg-type]


ALWAYS = load_policy("always")
GOOD = [0.8] * 10


def test_a_rule_that_fires_starts_one_named_job() -> None:
    decision = decide(window(GOOD), context(), ALWAYS)
    assert decision.action is Action.RETRAIN_AWS  # the cheaper list price
    assert decision.job_id == "qa-20231114t221400"
    assert decision.observation["accuracy"] == pytest.approx(0.8)
    assert decode(DecisionRecord, encode(decision)) == decision


def test_the_same_slot_gives_the_same_record() -> None:
    assert decide(window(GOOD), context(), ALWAYS) == decide(window(GOOD), context(), ALWAYS)


def test_unavailable_metrics_hold_with_the_reason() -> None:
    decision = decide(MetricsUnavailableError("http://p", "refused"), context(), ALWAYS)
    assert decision.action is Action.HOLD
    assert decision.observation == {}
    assert "refused" in decision.reason


@pytest.mark.parametrize(
    ("series", "told"),
    [
        (Series((), ()), "no samples"),
        (Series((NOW,), (math.nan,)), "no samples"),
        (Series((NOW - 6 * STEP,), (0.8,)), "bleu is stale: its last sample is 360 s old"),
    ],
)
def test_missing_and_stale_metrics_hold(series: Series, told: str) -> None:
    decision = decide(window(GOOD, bleu=series), context(), ALWAYS)
    assert decision.action is Action.HOLD
    assert [guard.name for guard in decision.guardrails] == ["metrics"]
    assert told in decision.reason


def test_too_short_a_past_holds() -> None:
    assert "only 2 slots" in decide(window([0.8, 0.8]), context(), ALWAYS).reason


@pytest.mark.parametrize("status", [JobStatus.CLAIMED, JobStatus.TRAINING, JobStatus.SUCCEEDED, JobStatus.ACCEPTED])
def test_one_job_at_a_time(status: JobStatus, record: Callable[..., JobRecord]) -> None:
    decision = decide(window(GOOD), context(jobs=(record(status, NOW - STEP, NOW),)), ALWAYS)
    assert decision.action is Action.HOLD
    assert f"job qa-1 on aws is {status}" in decision.reason


def test_cooldown_after_the_last_job(record: Callable[..., JobRecord]) -> None:
    recent = record(JobStatus.FAILED, NOW - 10 * STEP, NOW - 2 * STEP)
    decision = decide(window(GOOD), context(jobs=(recent,)), ALWAYS)
    assert (decision.wanted, decision.action) == (Action.RETRAIN_AWS, Action.HOLD)
    assert "the last job ended 120 s ago; the cooldown is 300 s" in decision.reason
    later = record(JobStatus.FAILED, NOW - 10 * STEP, NOW - 5 * STEP)
    assert decide(window(GOOD), context(jobs=(later,)), ALWAYS).action is Action.RETRAIN_AWS


@pytest.mark.parametrize(
    ("ended", "waits_slots"),
    [
        ([JobStatus.LIVE], 5),
        ([JobStatus.FAILED], 5),
        ([JobStatus.REJECTED, JobStatus.FAILED], 10),
        ([JobStatus.REJECTED, JobStatus.STOPPED, JobStatus.REJECTED], 10),
        ([JobStatus.FAILED, JobStatus.LIVE, JobStatus.FAILED], 5),
        ([JobStatus.REJECTED] * 4, 40),
        ([JobStatus.FAILED] * 20, 320),
    ],
)
def test_what_keeps_failing_is_tried_less_and_less_often(
    ended: list[JobStatus], waits_slots: int, record: Callable[..., JobRecord]
) -> None:
    def after(slots: float) -> DecisionRecord:
        last = NOW - slots * STEP
        jobs = tuple(record(status, last - 5 - k, last - k, cost_usd=0.0) for k, status in enumerate(ended[::-1]))
        return decide(window(GOOD), context(jobs=jobs), ALWAYS)

    early, due = after(waits_slots - 1), after(waits_slots)
    assert (early.action, due.action) == (Action.HOLD, Action.RETRAIN_AWS)
    assert f"the cooldown is {waits_slots * STEP:.0f} s" in early.reason
    assert ("failed or were rejected" in early.reason) is (waits_slots > 5)


def test_budget_counts_today_only(record: Callable[..., JobRecord]) -> None:
    spent = record(JobStatus.LIVE, NOW - 3600, NOW - 3000, cost_usd=49.9)
    decision = decide(window(GOOD), context(jobs=(spent,)), ALWAYS)
    assert decision.action is Action.HOLD
    assert "$49.90 spent today" in decision.reason
    yesterday = record(JobStatus.LIVE, NOW - 86_400, NOW - 80_000, cost_usd=49.9)
    assert decide(window(GOOD), context(jobs=(yesterday,)), ALWAYS).action is Action.RETRAIN_AWS


def test_an_unavailable_cloud_is_replaced_or_nothing_is_done() -> None:
    decision = decide(window(GOOD), context(unavailable={"aws": "timeout"}), ALWAYS)
    assert decision.action is Action.RETRAIN_AZURE
    both = decide(window(GOOD), context(unavailable={"aws": "timeout", "azure": "timeout"}), ALWAYS)
    assert both.action is Action.HOLD


def test_paused_and_watch_mode_record_what_was_wanted() -> None:
    paused = decide(window(GOOD), context(paused="deploy freeze"), ALWAYS)
    assert (paused.wanted, paused.action) == (Action.RETRAIN_AWS, Action.HOLD)
    assert "deploy freeze" in paused.reason
    blind = decide(MetricsError("nothing scraped"), context(paused="deploy freeze"), ALWAYS)
    assert "deploy freeze" in blind.reason
    assert [guard.name for guard in blind.guardrails] == ["metrics", "paused"]
    watching = decide(window(GOOD), context(settings=msgspec.structs.replace(SETTINGS, mode="watch")), ALWAYS)
    assert (watching.mode, watching.wanted, watching.action) == ("watch", Action.RETRAIN_AWS, Action.HOLD)
    assert watching.job_id is None


def test_static_fires_every_interval() -> None:
    policy = load_policy("static", every_slots=15)
    assert decide(window([0.8] * 15), context(), policy).action is Action.HOLD
    assert decide(window([0.8] * 16), context(), policy).action is Action.RETRAIN_AWS


def test_where_the_network_is_lost_the_tuned_rule_decides() -> None:
    absurd = msgspec.structs.replace(SETTINGS, price_usd_per_hour_aws=1e6, price_usd_per_hour_azure=1e6)
    decision = decide(window(GOOD), context(settings=absurd), load_policy("ppo"))
    assert [guard.name for guard in decision.guardrails] == ["out-of-distribution"]
    assert "log_retrain_cost is 14.7" in decision.reason
    assert "rule 'rule' decides" in decision.reason
    assert decision.action is Action.HOLD
