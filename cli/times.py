"""Times as one types them: `--since 7d`, `--until 2026-05-01T08:00`."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from shared.errors import InvalidInputError

_AGO: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([mhdw])")
_SECONDS: Final = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_time(text: str, option: str, now_s: float) -> float:
    """POSIX seconds of 90m, 24h, 7d, 2w (ago), or of an ISO 8601 time (UTC unless it names a zone).

    Raises:
        InvalidInputError: it is neither.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return max(0.0, now_s - float(ago[1]) * _SECONDS[ago[2]])
    try:
        at = dt.datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError) as exc:
        allowed = "90m, 24h, 7d, 2w (ago), 2026-05-01 or 2026-05-01T08:00 (UTC)"
        raise InvalidInputError(f"{option} {text!r}: not a time; write {allowed}") from exc
