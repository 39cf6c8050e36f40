"""The table at the end of a demo run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from local.report import CLOUD_NAMES, clock
from local.results import Arm, Retrain, costs_usd, retrains, slots, summary


def print_results(arms: Sequence[Arm], report: Path, console: Console) -> None:
    """One table of the arms, one of every retrain, and where the report is."""
    console.print(_arms(arms))
    for arm in arms:
        found = retrains(arm)
        if found:
            console.print(_retrains(arm, found))
    console.print(f"report: {report}", soft_wrap=True, highlight=False)


def _arms(arms: Sequence[Arm]) -> Table:
    table = Table(title="What it came to (dollars and minutes are simulated)", title_justify="left")
    table.add_column("arm")
    for heading in (
        "AWS",
        "Azure",
        "BLEU-1",
        "exact match",
        "failed",
        "p50 ms",
        "p95 ms",
        "training $",
        "lost $",
        "sum $",
    ):
        table.add_column(heading, justify="right")
    for arm in arms:
        found = summary(arm)
        training, lost = (float(column[-1]) for column in costs_usd(arm, slots(arm)))
        table.add_row(
            f"{arm.name} ({arm.policy})",
            str(found["retrains"]["aws"]),
            str(found["retrains"]["azure"]),
            _number(found["bleu1_mean"]),
            _number(found["exact_match_mean"]),
            f"{found['failed_requests']} of {found['requests']:,}",
            _milliseconds(found["latency_p50_s"]),
            _milliseconds(found["latency_p95_s"]),
            f"{training:.2f}",
            f"{lost:.2f}",
            f"{training + lost:.2f}",
        )
    return table


def _retrains(arm: Arm, found: Sequence[Retrain]) -> Table:
    table = Table(title=f"Retrains, {arm.name}", title_justify="left")
    for heading in ("decided", "live", "cloud", "outcome"):
        table.add_column(heading)
    for heading in ("BLEU-1 before → after", "exact match", "$"):
        table.add_column(heading, justify="right")
    for r in found:
        table.add_row(
            clock(r.decided_min),
            clock(r.live_min),
            CLOUD_NAMES[r.job.job.cloud],
            r.job.status.value,
            f"{_number(r.bleu1[0])} → {_number(r.bleu1[1])}",
            f"{_number(r.exact_match[0])} → {_number(r.exact_match[1])}",
            f"{r.cost_usd:.2f}",
        )
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.0f}"
