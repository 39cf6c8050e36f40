"""Trace ids followed through the JSON logs of every process of a run."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from local.demo.results import TraceEvent

#: shown beside the message when a log line carries them
DETAILS: Final = (
    "cloud", "chosen", "pairs", "model_version", "status", "bleu1", "exact_match", "duration_s", "epoch", "reason",
)  # fmt: skip


def collect(log_dir: Path, trace_ids: Iterable[str]) -> dict[str, tuple[TraceEvent, ...]]:
    """The log lines below `log_dir` that carry one of the ids, oldest first; lines that are not JSON are skipped."""
    found: dict[str, list[TraceEvent]] = {trace_id: [] for trace_id in trace_ids}
    for log in sorted(log_dir.rglob("*.log")):
        source = str(log.relative_to(log_dir)).removesuffix(".log")
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                event = _event(line)
                if event is not None and event.get("trace_id") in found:
                    found[event["trace_id"]].append(_trace_event(source, event))
    return {trace_id: _folded(sorted(events, key=lambda e: e.at_s)) for trace_id, events in found.items()}


def _folded(events: list[TraceEvent]) -> tuple[TraceEvent, ...]:
    """Many lines in a row of one process doing one thing (epochs) as its first and its last one."""
    kept: list[TraceEvent] = []
    for event in events:
        if len(kept) >= 2 and all((e.source, e.action) == (event.source, event.action) for e in kept[-2:]):
            kept[-1] = event
        else:
            kept.append(event)
    return tuple(kept)


def _event(line: str) -> dict[str, Any] | None:
    start = line.find("{")  # some hosts put a time before the JSON
    if start < 0 or "trace_id" not in line:
        return None
    try:
        event = json.loads(line[start:])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and ("timestamp" in event or "time" in event) else None


def _trace_event(source: str, event: dict[str, Any]) -> TraceEvent:
    message = str(event.get("message", ""))
    shown = [f"{name} {_short(event[name])}" for name in DETAILS if _worth_showing(event.get(name), message)]
    return TraceEvent(
        at_s=_posix_s(str(event.get("timestamp") or event["time"])),
        source=source,
        action=str(event.get("action", "")),
        message=f"{message} ({', '.join(shown)})" if shown else message,
    )


def _worth_showing(value: object, message: str) -> bool:
    return value not in (None, "") and not (isinstance(value, str) and value in message)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _posix_s(stamp: str) -> float:
    """POSIX seconds of an ISO time stamp; one without a zone is UTC, and a comma may stand for the point."""
    moment = dt.datetime.fromisoformat(stamp.replace(",", "."))
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
