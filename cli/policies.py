"""The policies that a command offers, with the shipped one first."""

from __future__ import annotations

from typing import Final

from policy.catalogue import BACKTEST_ONLY, DEPLOYABLE, REFERENCE, SHIPPED, check_deployable
from shared.errors import InvalidInputError

OPTIMAL: Final = "oracle"


def offered(*, replayed: bool = False) -> list[str]:
    """Names for `--policy`: what a service can run, or all that can be replayed."""
    rules = [name for name in DEPLOYABLE if name not in SHIPPED]
    if replayed:
        return [*SHIPPED, *REFERENCE, *sorted({*rules, *BACKTEST_ONLY}), OPTIMAL]
    return [*SHIPPED, *sorted(rules)]


def check(name: str, option: str = "--policy", *, replayed: bool = False) -> None:
    """Refuse a name that is none, with those there are. Files are checked by who loads them.

    Raises:
        InvalidInputError: no such policy, or none that a service can run.
    """
    if name.endswith(".onnx") or name in offered(replayed=replayed):
        return
    if not replayed and name in offered(replayed=True):
        try:
            check_deployable(name)
        except InvalidInputError as exc:
            raise InvalidInputError(f"{option} {name}: {exc}") from exc
    names = ", ".join(offered(replayed=replayed))
    raise InvalidInputError(f"{option} {name}: no such policy; choose from {names}, or give a .onnx file")
