"""HTTP headers of our own, from a caller through the functions to a serving container."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from shared.errors import InvalidInputError

#: how long the caller waits for the answer, in seconds from now, on every hop
TIMEOUT_HEADER: Final = "X-Opportune-Timeout"
#: the same in whole milliseconds, what callers sent before there was one header; still read
_TIMEOUT_MS_HEADER: Final = "X-Opportune-Deadline-Ms"


def requested_timeout_s(header: Callable[[str], str | None]) -> float | None:
    """How many seconds the caller waits for its answer, > 0; None when it does not say.

    `header` gives a header's value by name, or None.

    Raises:
        InvalidInputError: the header is not a positive number.
    """
    given = header(TIMEOUT_HEADER)
    if given is not None:
        seconds = _number(given)
        if not 0 < seconds < math.inf:
            raise InvalidInputError(f"header {TIMEOUT_HEADER} is {given!r}; allowed: a number of seconds > 0")
        return seconds
    given = header(_TIMEOUT_MS_HEADER)
    if given is None:
        return None
    seconds = float(given) / 1000.0 if given.isascii() and given.isdigit() else 0.0
    if seconds == 0.0:
        raise InvalidInputError(f"header {_TIMEOUT_MS_HEADER} is {given!r}; allowed: a whole number > 0")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
