"""The scheduled function with a clock that the caller sets and a watch on what a tick spends in its HTTP client.

Runs in the function's own process, from the package; benchmarks.functions names it as the handler.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Final

from urllib3 import HTTPConnectionPool
from urllib3.response import BaseHTTPResponse

from functions.aws import schedule

_urlopen: Final = HTTPConnectionPool.urlopen
_spent_s: list[float] = []


def _timed(pool: HTTPConnectionPool, *args: Any, **named: Any) -> BaseHTTPResponse:
    begun = time.thread_time()
    try:
        return _urlopen(pool, *args, **named)
    finally:
        _spent_s.append(time.thread_time() - begun)


# every request of a tick comes through here, the Prometheus client's too; the process is this benchmark's own
HTTPConnectionPool.urlopen = _timed  # type: ignore[assignment, method-assign]


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The function's answer at `now_s`, and the processor time of its HTTP exchanges: requests sent, answers read."""
    # the tick asks this module alone for the time; requests are signed with the real one
    schedule.time = SimpleNamespace(time=lambda: event["now_s"])  # type: ignore[assignment, attr-defined]
    _spent_s.clear()
    answer = schedule.handler(event, context)
    return {**answer, "exchanges_ms": sum(_spent_s) * 1e3}
