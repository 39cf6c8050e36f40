"""An answer without what it should hold is no answer: an error that names what was asked, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import UnavailableError


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Runs what reads an answer of `what`.

    Raises:
        UnavailableError: a field is missing or of another kind.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        said = " ".join(str(exc).split())[:300]
        raise UnavailableError(what, f"an answer that cannot be used: {type(exc).__name__}: {said}") from exc
