"""The scheduled function with a clock that the caller sets, and how long it took.

Runs in the function's own process, from the package; benchmarks.functions names it as the handler.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from functions.aws import schedule


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The function's answer at `now_s`, and the wall time of all it did, every exchange with the clouds included."""
    # the tick asks this module alone for the time; requests are signed with the real one
    schedule.time = SimpleNamespace(time=lambda: event["now_s"])  # type: ignore[assignment, attr-defined]
    begun = time.perf_counter()
    answer = schedule.handler(event, context)
    return {**answer, "wall_ms": (time.perf_counter() - begun) * 1e3}
