"""The numbers of a run and the page that shows them, from a made-up run whose right answers are known."""

from __future__ import annotations

import dataclasses
import html as html_words
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local.demo.load_generator import Outcome
from local.demo.report import render, verdict
from local.demo.results import (
    Against,
    Arm,
    Prices,
    Swap,
    TraceEvent,
    against,
    comparisons,
    cost_usd,
    costs_usd,
    never,
    retrains,
    slots,
    summary,
)
from shared.contracts import Action, Decision, Guardrail, JobRecord, JobStatus, TrainingJob

START = 1_700_000_000.0
SPEED = 30.0  # a slot of 60 simulated seconds is 2 real ones
MINUTES = 60.0
TRACE = "ab" * 16


def outcome(minute: float, bleu1: float | None, version: str, latency_s: float = 0.05) -> Outcome:
    cloud = "aws" if minute < 30 else "azure"
    group = "birds" if minute < 12 or int(minute * 7) % 3 == 0 else "ships & <sails>"
    due_s, asked = minute * 60 / SPEED, f"what is {group}?"
    if bleu1 is None:
        return Outcome(due_s, due_s, latency_s, "aws", group, 503, error="aws/predict: HTTP 503", question=asked)
    exact = float(bleu1 == 1.0)
    return Outcome(due_s, due_s, latency_s, "aws", group, 200, cloud, version, bleu1, exact, question=asked)


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
        "latency_p50_s", "latency_p95_s", "cost_usd", "decisions", "wall_s", "metrics_path",
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


@pytest.fixture
def measured(arm: Arm) -> Arm:
    """The same, and the first model was asked: it knows birds and nothing of ships."""
    return dataclasses.replace(arm, first_model={"what is birds?": (1.0, 1.0), "what is ships & <sails>?": (0.0, 0.0)})


def test_never_is_the_first_model_on_the_same_requests_without_training(measured: Arm) -> None:
    unchanged = never(measured)
    assert unchanged is not None and unchanged.jobs == () and len(unchanged.outcomes) == 120
    scores = {o.group: o.bleu1 for o in unchanged.outcomes if o.ok}
    assert scores == {"birds": 1.0, "ships & <sails>": 0.0}
    assert [o.ok for o in unchanged.outcomes].count(False) == 1, "a request that failed is not answered by guessing"
    training, lost = costs_usd(unchanged, slots(unchanged))
    assert training[-1] == 0 and cost_usd(unchanged) == pytest.approx(lost[-1])


def test_what_was_not_measured_is_not_said(arm: Arm, measured: Arm) -> None:
    assert never(arm) is None and comparisons([arm]) == [] and against([arm]) == {} and verdict(arm, []) == ""
    partly = dataclasses.replace(measured, first_model={"what is birds?": (1.0, 1.0)})
    assert never(partly) is None
    html = render([arm], title="Drift", notes=[])
    assert "never retraining" not in html and "<h1>Drift</h1>" in html


def test_the_verdict_is_in_dollars_against_never_and_against_the_other_arm(measured: Arm) -> None:
    static = dataclasses.replace(measured, name="static", policy="static, every 15 min", jobs=measured.jobs * 3)
    mine, compared = cost_usd(measured), comparisons([measured, static])
    assert [c.arm.name for c in compared] == ["never", "static"]
    assert [c.saved_usd for c in compared] == pytest.approx([c.cost_usd - mine for c in compared])
    said = verdict(measured, compared)
    saved = f"${compared[0].saved_usd:.2f} ({compared[0].saved_share:.0%})"
    assert said == (
        f"Adaptive retraining saved {saved} against never retraining and ${compared[1].saved_usd:.2f} "
        f"({compared[1].saved_share:.0%}) against retraining every 15 min."
    )
    assert against([measured, static])["static"]["saved_usd"] == pytest.approx(compared[1].saved_usd, abs=1e-4)
    assert set(against([measured])["never"]) == {
        "bleu1_mean", "exact_match_mean", "cost_usd", "saved_usd", "saved_share",
    }  # fmt: skip


def test_a_policy_that_cost_more_is_said_to_have_cost_more(measured: Arm) -> None:
    dear = dataclasses.replace(measured, prices=Prices({"aws": 0.7, "azure": 500.0}, 6.0))
    assert "cost $" in verdict(dear, comparisons([dear])) and "more than never" in verdict(dear, comparisons([dear]))


def test_a_difference_below_a_hundredth_is_none(measured: Arm) -> None:
    same = Against(measured, cost_usd=5.0, saved_usd=-0.04, saved_share=-0.008)
    assert verdict(measured, [same]) == "Adaptive retraining came to the same as adaptive retraining."


def test_a_retrain_stands_beside_the_first_model_on_the_questions_asked_then(measured: Arm) -> None:
    (found,) = retrains(measured)
    assert found.bleu1[1] == 1.0 and found.bleu1_first_model is not None and found.bleu1_first_model < 0.7


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
    for said in ("Traffic drifted once, the policy retrained once.", "Mean BLEU-1 was 0.66",
                 "1 of 120 requests failed.",
                 "one <note>", "quality fell <fast>", "retrain <now>", "new: ships & <sails>", TRACE,
                 "in-flight: a job runs", "On the same questions", "0:20", "simulated minutes"):  # fmt: skip
        assert said in text, said


def test_holds_are_folded_and_guarded_ones_are_not_lost(arm: Arm) -> None:
    html = render([arm], title="t", notes=[])
    assert "0:00–0:19" in html and "0:21–0:22" in html and "(wanted AWS)" in html
    assert "On the same questions" not in html


def test_every_cell_names_its_column_where_a_row_becomes_a_card(measured: Arm) -> None:
    html = render([measured], title="t", notes=[])
    cells = re.findall(r"<td[^>]*>", html)
    assert cells and all("data-label=" in cell for cell in cells)
    css = html[html.index("<style>") : html.index("</style>")]
    narrow = css[css.index("@media (max-width: 640px)") :]
    assert "thead { display: none; }" in narrow and "content: attr(data-label)" in narrow


def test_letters_of_the_drawings_are_readable_on_a_telephone(measured: Arm) -> None:
    """A drawing fills a window of 360 pixels less what page and section keep free; its letters shrink with it."""
    html = render([measured], title="t", notes=[])
    css = html[html.index("<style>") : html.index("</style>")]
    narrow = css[css.index("@media (max-width: 640px)") :]
    main = re.search(r"main { padding: \d+px (\d+)px", narrow)
    section = re.search(r"section { padding: \d+px (\d+)px", narrow)
    letters = re.search(r"\.tick, \.unit, \.pin, svg text\.inbar { font-size: ([\d.]+)px", narrow)
    assert main and section and letters
    room = 360 - 2 * int(main[1]) - 2 * int(section[1]) - 2
    widths = {int(width) for width in re.findall(r'<svg viewBox="0 0 (\d+) ', html)}
    assert widths and all(float(letters[1]) * room / width >= 11 for width in widths)


CHROMIUM = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
#: says in its title how wide the page is and how small its smallest drawn letter, both in pixels of the screen
MEASURE = """<script>
const texts = [...document.querySelectorAll("svg text")];
const sizes = texts.map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a).filter(s => s > 0);
const cells = [...document.querySelectorAll("td, th, p, h1, li")].filter(c => c.offsetParent);
const out = cells.filter(c => c.getBoundingClientRect().right > document.documentElement.clientWidth + 1).length;
const root = document.documentElement;
document.title = JSON.stringify({page: root.scrollWidth, window: root.clientWidth,
                                 smallest: Math.min(...sizes), cells: cells.length, out: out});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_of_a_telephones_width_shows_all_of_it(measured: Arm, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    page, frame = tmp_path / "report.html", tmp_path / "frame.html"
    page.write_text(render([measured], title="t", notes=["n"]).replace("</body>", f"{MEASURE}</body>"))
    # A window of its own cannot be as narrow as a telephone; a frame can.
    frame.write_text(
        '<iframe id="f" src="report.html" width="360" height="8000" style="border:0"></iframe><script>'
        "f.onload = () => setTimeout(() => document.title = f.contentDocument.title, 200)</script>"
    )
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>({.*?})</title>", done.stdout)
    assert title, done.stdout[-500:] + done.stderr[-500:]
    found = json.loads(html_words.unescape(title[1]))
    assert found["page"] <= found["window"] == 360, found
    assert found["smallest"] >= 11 and found["cells"] > 50 and found["out"] == 0, found
