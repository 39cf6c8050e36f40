"""What one watches during a run, on standard error: a live panel in a terminal; elsewhere a line now and then, and one
for each decision to retrain.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from local.demo.load_generator import Outcome
from local.demo.report import CLOUD_NAMES, clock
from shared.contracts import CLOUDS, IN_FLIGHT, Cloud, Decision, JobRecord

#: quality and latency on the panel are those of the last few slots
RECENT_SLOTS: Final = 4
#: between two lines where there is no terminal, simulated minutes
LINE_EVERY_MIN: Final = 5.0
REFRESH_PER_S: Final = 4
BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Now:
    """The present moment of a run."""

    arm: str
    minute: float
    minutes: float
    slot_s: float
    elapsed_s: float
    outcomes: Sequence[Outcome]
    decisions: Sequence[Decision]
    jobs: Sequence[JobRecord]
    nearer: Cloud
    problem: str

    @property
    def recent(self) -> list[Outcome]:
        """Outcomes of the last few slots."""
        since = self.elapsed_s - RECENT_SLOTS * self.slot_s
        return [o for o in self.outcomes if o.due_s >= since]

    def bleu1(self) -> float | None:
        """Live BLEU-1 of the last few slots."""
        known = [o.bleu1 for o in self.recent if o.bleu1 is not None]
        return float(np.mean(known)) if known else None

    def history(self, width: int = 48) -> str:
        """BLEU-1 since the start as a row of bars."""
        cells: list[list[float]] = [[] for _ in range(width)]
        span_s = max(self.elapsed_s, self.slot_s)
        for o in self.outcomes:
            if o.bleu1 is not None:
                cells[min(width - 1, int(o.due_s / span_s * width))].append(o.bleu1)
        return "".join(BARS[min(7, int(np.mean(cell) * 8))] if cell else " " for cell in cells)


class Progress:
    """Shows `Now` until left. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=REFRESH_PER_S, transient=True)
        self._next_line_min = 0.0
        self._told: set[str] = set()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, now: Now) -> None:
        """Draw the panel, or write what has to be said by now."""
        if self._console.is_terminal:
            self._live.update(panel(now))
            return
        for decision in now.decisions:
            if decision.action.cloud is not None and decision.decision_id not in self._told:
                self._told.add(decision.decision_id)
                self._write(f"{now.arm} {clock(now.minute)} | {_said(decision)}")
        if now.minute >= self._next_line_min:
            self._next_line_min = now.minute + LINE_EVERY_MIN
            self._write(line(now))

    def _write(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def panel(now: Now) -> Panel:
    """The live panel."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right", no_wrap=True)
    table.add_column()
    table.add_row("time", ProgressBar(total=now.minutes, completed=min(now.minute, now.minutes), width=48))
    quality = now.bleu1()
    table.add_row("BLEU-1", Text(f"{now.history()}  {'–' if quality is None else f'{quality:.2f}'}"))
    table.add_row("requests", Text.from_markup(_requests(now)))
    table.add_row("latency", Text(_latency(now)))
    table.add_row("decision", Text(_decision(now)))
    table.add_row("job", Text(_job(now)))
    if now.problem:
        table.add_row("trouble", Text(now.problem, style="red"))
    title = f"Opportune · {now.arm} · {clock(now.minute)} of {clock(now.minutes)} simulated"
    return Panel(Group(table), title=title, title_align="left", border_style="dim")


def line(now: Now) -> str:
    """The same in one line."""
    quality = now.bleu1()
    parts = [
        f"{now.arm} {clock(now.minute)}",
        f"BLEU-1 {'–' if quality is None else f'{quality:.2f}'}",
        _latency(now),
        _decision(now),
        _job(now),
        now.problem,
    ]
    return " | ".join(part for part in parts if part)


def _requests(now: Now) -> str:
    failed = sum(not o.ok for o in now.outcomes)
    rate = len(now.recent) / (RECENT_SLOTS * now.slot_s)
    lost = f"[red]{failed} failed[/red]" if failed else "0 failed"
    return f"{len(now.outcomes):,} so far, {rate:.1f} a second, {lost}"


def _latency(now: Now) -> str:
    shown = []
    for cloud in CLOUDS:
        known = [o.latency_s for o in now.recent if o.ok and o.cloud == cloud]
        nearer = " (nearer)" if cloud == now.nearer else ""
        median = f"{np.median(known) * 1000:.0f} ms x{len(known)}" if known else "–"
        shown.append(f"{CLOUD_NAMES[cloud]}{nearer} {median}")
    return ", ".join(shown)


def _decision(now: Now) -> str:
    return _said(now.decisions[-1]) if now.decisions else "none yet"


def _said(decision: Decision) -> str:
    if decision.action.cloud is None:
        return decision.reason if decision.reason.startswith("hold") else f"hold: {decision.reason}"
    return f"retrain on {CLOUD_NAMES[decision.action.cloud]}: {decision.reason}"


def _job(now: Now) -> str:
    if not now.jobs:
        return "no retrain yet"
    last = now.jobs[-1]
    since = f", {time.time() - last.job.slot_s:.0f} s since the decision" if last.status in IN_FLIGHT else ""
    return f"{last.job.job_id} on {CLOUD_NAMES[last.job.cloud]}: {last.status.value}{since}"
