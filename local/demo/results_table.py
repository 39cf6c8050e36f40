"""The table at the end of a demo run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from local.demo.report import CLOUD_NAMES, clock, verdict
from local.demo.results import Arm, Retrain, comparisons, costs_usd, retrains, slots, summary


def print_results(arms: Sequence[Arm], report: Path, console: Console) -> None:
    """One table of the arms, one of every retrain, and where the report is."""
    compared = comparisons(arms)
    console.print(_arms([arms[0], *(other.arm for other in compared)]))
    for arm in arms:
        found = retrains(arm)
        if found:
            console.print(_retrains(arm, found))
    if said := verdict(arms[0], compared):
        console.print(said, highlight=False)
    console.print(f"report: {report}", soft_wrap=True, highlight=False)


def _arms(arms: Sequence[Arm]) -> Table:
    table = Table(title="What it came to (dollars are of simulated time)", title_justify="left")
    table.add_column("")
    for arm in arms:
        table.add_column(f"{arm.name}: {arm.policy}", justify="right")
    columns = [_figures(arm) for arm in arms]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _figures(arm: Arm) -> dict[str, str]:
    found = summary(arm)
    training, lost = (float(column[-1]) for column in costs_usd(arm, slots(arm)))
    return {
        "retrains on AWS, Azure": f"{found['retrains']['aws']}, {found['retrains']['azure']}",
        "mean live BLEU-1": _number(found["bleu1_mean"]),
        "mean live exact match": _number(found["exact_match_mean"]),
        "failed requests": f"{found['failed_requests']} of {found['requests']:,}" if arm.name != "never" else "–",
        "latency p50, p95": _latency(found) if arm.name != "never" else "–",
        "training": f"${training:.2f}",
        "value of quality lost": f"${lost:.2f}",
        "sum": f"${training + lost:.2f}",
    }


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


def _latency(found: dict[str, Any]) -> str:
    return f"{_milliseconds(found['latency_p50_s'])}, {_milliseconds(found['latency_p95_s'])} ms"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.0f}"
