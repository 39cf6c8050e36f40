"""The SDK's errors as this project's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from shared.adapters.answers import understood
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
NO_CAPACITY: Final = re.compile(
    r"OutOfCapacity|AllocationFail|Overconstrained\w*Allocation|NotEnoughCapacity|InsufficientCapacity|SkuNotAvailable",
    re.I,
)


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


@contextmanager
def answered(what: str, *, conditional: bool = True) -> Iterator[None]:
    """`translated` for a request and what is read from its answer: one that cannot be understood is unavailable."""
    with understood(what), translated(what, conditional=conditional):
        yield


def reason(exc: Any) -> str:
    """Why a request failed, without its address: that may carry a signature."""
    inner = getattr(exc, "inner_exception", None) or exc
    cause = getattr(inner.args[0], "reason", inner) if inner.args else inner
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


def _in_body(exc: Any) -> str:
    """The code in the form of tables, which their SDK does not always read."""
    found = re.search(r'"odata.error":\s*\{\s*"code":\s*"(\w+)"', str(exc))
    return found[1] if found else ""


def _failure(what: str, exc: Any, conditional: bool) -> OpportuneError:
    if exc.status_code is None:
        return UnavailableError(what, reason(exc))
    told = getattr(exc, "error", None)  # the form of Azure's management interface
    code = getattr(exc, "error_code", None) or getattr(told, "code", None) or _in_body(exc)
    message = " ".join(str(getattr(told, "message", None) or exc.message).split())[:300]
    said = f"{getattr(code, 'value', code)}: {message}" if code else message
    if not code:  # a status without the service's own word for it: whoever answered, it was not Azure
        return UnavailableError(what, f"HTTP {exc.status_code}: {message}")
    if exc.status_code in (409, 412) and conditional and "BeingDeleted" not in said:
        return ConflictError(f"{what}: somebody else was first ({said})")
    if exc.status_code == 404:
        return NotFoundError(f"{what} does not exist ({said})")
    if NO_CAPACITY.search(said):
        return CapacityError(what, said)
    if 400 <= exc.status_code < 500 and exc.status_code not in _FOR_NOW:
        return RefusedError(what, f"HTTP {exc.status_code}: {said}")
    return UnavailableError(what, f"HTTP {exc.status_code}: {said}")
