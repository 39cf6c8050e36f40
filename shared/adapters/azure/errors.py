"""The SDK's errors as this project's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from shared.errors import (
    CapacityError,
    ConflictError,
    NotFoundError,
    OpportuneError,
    RefusedError,
    UnavailableError,
)

#: a token that has just ended, a lock, a limit of the rate: another request may fare better
_FOR_NOW: Final = frozenset({401, 408, 409, 412, 429})
#: how Azure says that there is no machine of the kind
NO_CAPACITY: Final = re.compile(r"OutOfCapacity|AllocationFailed|OverconstrainedAllocation|NotEnoughCapacity", re.I)


@contextmanager
def translated(what: str, *, conditional: bool = True) -> Iterator[None]:
    """Turn SDK errors about `what` into this project's, with the service's own code and message.

    `conditional`: whether 409 and 412 say that somebody else was first; else they are errors like any other.

    Raises:
        ConflictError: 409 or 412.
        NotFoundError: 404.
        RefusedError, CapacityError: Azure will not, for good or for want of a machine.
        UnavailableError: no answer, or one that may be another a moment later.
    """
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as exc:
        raise _failure(what, exc, conditional) from exc
    except AzureError as exc:
        raise UnavailableError(what, reason(exc)) from exc


def reason(exc: Any) -> str:
    """Why a request failed, without its address: that may carry a signature."""
    inner = getattr(exc, "inner_exception", None) or exc
    cause = getattr(inner.args[0], "reason", inner) if inner.args else inner
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


def _failure(what: str, exc: Any, conditional: bool) -> OpportuneError:
    if exc.status_code is None:
        return UnavailableError(what, reason(exc))
    told = getattr(exc, "error", None)  # the form of Azure's management interface
    code = getattr(exc, "error_code", None) or getattr(told, "code", None)
    message = " ".join(str(getattr(told, "message", None) or exc.message).split())[:300]
    said = f"{getattr(code, 'value', code)}: {message}" if code else message
    if exc.status_code in (409, 412) and conditional:
        return ConflictError(f"{what}: somebody else was first ({said})")
    if exc.status_code == 404:
        return NotFoundError(f"{what} does not exist ({said})")
    if NO_CAPACITY.search(said):
        return CapacityError(what, said)
    if 400 <= exc.status_code < 500 and exc.status_code not in _FOR_NOW:
        return RefusedError(what, f"HTTP {exc.status_code}: {said}")
    return UnavailableError(what, f"HTTP {exc.status_code}: {said}")
