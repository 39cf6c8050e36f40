"""The numbers of a run and the page that shows them, from a made-up run whose right answers are known."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from local.demo.charts import Chart, ticks
from local.demo.load import Outcome
from local.demo.report import render
from local.demo.results import Arm, Prices, Swap, TraceEvent, costs_usd, retrains, slots, summary
from shared.contracts import Action, Decision, Guardrail, JobRecord, JobStatus, TrainingJob

START = 1_700_000_000.0
SPEED = 30.0  # a slot of 60 simulated seconds is 2 real ones
MINUTES = 60.0
TRACE = "ab" * 16


def outcome(minute: float, bleu1: float | None, version: str, latency_s: float = 0.05) -> Outcome:
    cloud = "aws" if minute < 30 else "azure"
    group = "birds" if minute < 12 or int(minute * 7) % 3 == 0 else "ships & <sails>"
    due_s = minute * 60 / SPEED
    if bleu1 is None:
        return Outcome(due_s, due_s, latency_s, "aws", group, 503, error="aws/predict: HTTP 503")
    return Outcome(due_s, due_s, latency_s, "aws", group, 200, cloud, version, bleu1, float(bleu1 == 1.0))


@pytest.fixture
def job(a_job: Callable[..., TrainingJob]) -> Callable[..., JobRecord]:
    """A function: minute of the decision -> the record of a job on Azure that trains for 20 real seconds."""

    def make(slot_minute: float, status: JobStatus = JobStatus.LIVE, version: str = "m1") -> JobRecord:
        slot_s = START + slot_minute * 2
        training = a_job(
            job_id=f"qa-{slot_minute:.0f}", slot_s=slot_s, cloud="azure", trace_id=TRACE,
            decision_id=f"d-{slot_minute:.0f}",
        )  # fmt: skip
        return JobRecord(
            job=training, status=status, updated_s=slot_s + 22, started_s=slot_s + 1, finished_s=slot_s + 21,
            model_version=version,
        )  # fmt: skip

    return make


@pytest.fixture
def decision(a_decision: Callable[..., Decision]) -> Callable[[int], Decision]:
    """A function: minute -> what was decided: to retrain in minute 20, held back in the two after it."""

    def make(minute: int) -> Decision:
        changes: dict[str, Any] = {"decision_id": f"d-{minute}", "slot_s": START + minute * 2, "trace_id": TRACE}
        if minute == 20:
            fell = "quality fell <fast>"
            return a_decision(Action.RETRAIN_AZURE, probabilities=(0.2, 0.1, 0.7), reason=fell, **changes)
        if minute in (21, 22):
            rail = Guardrail(name="in-flight", before=Action.RETRAIN_AWS, after=Action.HOLD, reason="a job runs")
            changes |= {"wanted": Action.RETRAIN_AWS, "guardrails": (rail,)}
        return a_decision(probabilities=(0.9, 0.05, 0.05), reason="quality is steady", **changes)

    return make


@pytest.fixture
def arm(job: Callable[..., JobRecord], decision: Callable[[int], Decision]) -> Arm:
    """Quality 1 until minute 12, 0 until minute 32, then 1 again by model m1; two requests a minute, one failed."""
    outcomes = []
    for minute in np.arange(0, MINUTES, 0.5):
        good = minute < 12 or minute >= 32
        outcomes.append(outcome(float(minute), 1.0 if good else 0.0, "base" if minute < 32 else "m1"))
    outcomes[100] = outcome(50.0, None, "")
    return Arm(
        name="adaptive",
        policy="ppo",
        started_s=START,
        wall_s=120.0,
        speed=SPEED,
        slot_s=2.0,
        minutes=MINUTES,
        outcomes=tuple(outcomes),
        decisions=tuple(decision(minute) for minute in range(60)),
        jobs=(job(20),),
        swaps=(Swap(0, "aws"), Swap(1800, "azure")),
        drifts_s=((720.0, "ships & <sails>"),),
        prices=Prices({"aws": 0.7, "azure": 0.9}, 6.0),
        traces={TRACE: (TraceEvent(START + 40, "aws-host", "decide", "retrain <now>"),)},
    )


def test_before_and_after_are_what_users_got(arm: Arm) -> None:
    (found,) = retrains(arm)
    assert found.bleu1 == (0.0, 1.0)
    assert found.exact_match == (0.0, 1.0)
    assert found.decided_min == 20
    assert found.live_min == pytest.approx(32, abs=0.1)
    assert found.cost_usd == pytest.approx(20 * SPEED / 3600 * 0.9)


def test_a_job_that_never_served_costs_but_has_no_after(arm: Arm, job: Callable[..., JobRecord]) -> None:
    failed = dataclasses.replace(arm, jobs=(job(20, JobStatus.FAILED, "other"), job(40, JobStatus.CLAIMED)))
    (found,) = retrains(failed)
    assert found.live_min is None and found.bleu1 == (0.0, None) and found.cost_usd > 0
    assert summary(failed)["bleu1_before_after"] == []
    assert summary(failed)["retrains"] == {"aws": 0, "azure": 1}


def test_summary_has_exactly_the_promised_keys_and_right_numbers(arm: Arm) -> None:
    found = summary(arm)
    assert set(found) == {
        "retrains", "bleu1_mean", "bleu1_before_after", "exact_match_mean", "requests", "failed_requests",
        "latency_p50_s", "latency_p95_s", "cost_usd", "decisions", "wall_s",
    }  # fmt: skip
    assert (found["requests"], found["failed_requests"], found["decisions"]) == (120, 1, 60)
    assert found["bleu1_mean"] == pytest.approx(79 / 119, abs=1e-4)
    assert found["bleu1_before_after"] == [[0.0, 1.0]]
    # 20 minutes without any quality at 6 dollars an hour, and 10 simulated minutes of training
    assert found["cost_usd"] == pytest.approx(20 / 60 * 6 + 20 * SPEED / 3600 * 0.9, abs=1e-3)


def test_no_answer_at_all_is_null_not_zero(arm: Arm) -> None:
    dead = dataclasses.replace(arm, outcomes=(outcome(3, None, ""),), jobs=())
    found = summary(dead)
    assert found["bleu1_mean"] is None and found["latency_p95_s"] is None
    assert found["failed_requests"] == 1 and found["cost_usd"] == 0
    assert "0:00" in render([dead], title="t", notes=[])


def test_a_gap_keeps_the_last_quality_for_its_price(arm: Arm) -> None:
    gap = dataclasses.replace(arm, outcomes=(outcome(0, 0.0, "base"), outcome(59, 1.0, "base")), jobs=())
    _, lost = costs_usd(gap, slots(gap))
    assert lost[-1] == pytest.approx(59 / 60 * 6)


class Page(HTMLParser):
    """Collects what the page would load, its text, and whether tags balance."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.svgs = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        self.svgs += tag == "svg"
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_self_contained_well_formed_and_escaped(arm: Arm) -> None:
    html = render([arm, dataclasses.replace(arm, name="static")], title="Drift & more", notes=["seed 7", "one <note>"])
    page = Page()
    page.feed(html)
    assert page.open == [] and page.loads == [] and page.svgs == 7
    assert not re.search(r"@import|url\(", html)
    text = " ".join("".join(page.text).split())
    for said in ("Traffic drifted once, the policy retrained once.", "Live BLEU-1 0.00 → 1.00.",
                 "1 of 120 requests failed.",
                 "one <note>", "quality fell <fast>", "retrain <now>", "new: ships & <sails>", TRACE,
                 "in-flight: a job runs", "Adaptive against static", "0:20", "simulated minutes"):  # fmt: skip
        assert said in text, said


def test_holds_are_folded_and_guarded_ones_are_not_lost(arm: Arm) -> None:
    html = render([arm], title="t", notes=[])
    assert "0:00–0:19" in html and "0:21–0:22" in html and "(wanted AWS)" in html
    assert "Adaptive against static" not in html


def test_lines_break_where_nothing_was_measured() -> None:
    svg = Chart(10, 1.0, "u").line(np.arange(5.0), np.array([1, 1, np.nan, 1, np.nan]), "bleu").svg("x")
    assert svg.count("<polyline") == 1 and svg.count("<circle") == 1 and "nan" not in svg


@pytest.mark.parametrize("high", [0.003, 1.0, 7.0, 100.0, 123456.0])
def test_ticks_are_few_round_and_inside(high: float) -> None:
    found = ticks(0, high, 4)
    assert 3 <= len(found) <= 6 and found[0] == 0 and found[-1] <= high * 1.000001
