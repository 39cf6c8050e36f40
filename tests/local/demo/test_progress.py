"""What one sees during a run, in a terminal and without one."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from local.demo.load_generator import Outcome
from local.demo.progress import Now, Progress, line, panel
from shared.contracts import Action, Cloud


def outcome(due_s: float, cloud: Cloud, bleu1: float | None) -> Outcome:
    if bleu1 is None:
        return Outcome(due_s, due_s, 1.0, "aws", "g", 503, error="aws/predict: HTTP 503")
    return Outcome(due_s, due_s, 0.05 if cloud == "aws" else 0.12, "aws", "g", 200, cloud, "base", bleu1, bleu1)


def moment(minute: float, outcomes: list[Outcome]) -> Now:
    return Now("adaptive", minute, 100, 2.0, minute * 2, outcomes, [], [], "aws", "")


def test_a_line_says_quality_latency_and_that_nothing_was_decided() -> None:
    said = line(moment(5, [outcome(9.0, "aws", 1.0), outcome(9.5, "azure", 0.5)]))
    assert "0:05" in said and "BLEU-1 0.75" in said and "none yet" in said
    assert "AWS (nearer) 50 ms" in said and "Azure 120 ms" in said


def test_old_outcomes_do_not_count_as_live_quality() -> None:
    said = line(moment(50, [outcome(1.0, "aws", 1.0), outcome(99.0, "aws", 0.0)]))
    assert "BLEU-1 0.00" in said


def test_the_panel_counts_failures() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(panel(moment(5, [outcome(9.0, "aws", None), outcome(9.5, "aws", 0.5)])))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 failed" in shown and "2 so far" in shown


def test_without_a_terminal_a_line_every_few_minutes() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with Progress(console) as progress:
        for tenth in range(100):
            progress.show(moment(tenth / 10, []))
    assert console.file.getvalue().count("\n") == 2  # type: ignore[attr-defined]


def test_without_a_terminal_every_retrain_has_its_line_once(a_decision) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    decided = [a_decision(decision_id="1"), a_decision(Action.RETRAIN_AZURE, decision_id="2", reason="quality fell")]
    with Progress(console) as progress:
        progress.show(moment(0, []))
        for tenth in range(1, 20):  # no line of the ordinary kind is due
            progress.show(replace(moment(tenth / 10, []), decisions=[*decided, a_decision(decision_id="3")]))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert told.count("adaptive 0:00 | retrain on Azure: quality fell") == 1
    assert told.count("\n") == 2
