"""The policies that a command offers, with the shipped one first."""

from __future__ import annotations

from typing import Final

from shared.errors import InvalidInputError

#: the shipped network that a service is offered, and the networks of a back-test
SHIPPED: Final = ("ppo",)
REPLAYED: Final = ("ppo", "ppo-paper")
ORACLE: Final = "oracle"


def offered(*, replayed: bool = False) -> list[str]:
    """Names for `--policy`: what a service can run, or all that can be replayed."""
    from policy.rules.registry import RIVALS

    if replayed:
        return [*REPLAYED, *sorted(RIVALS), ORACLE]
    return [*SHIPPED, *sorted(name for name, (module, _) in RIVALS.items() if module.startswith("policy.rules."))]


def check(name: str, option: str = "--policy", *, replayed: bool = False) -> None:
    """Refuse a name that is none, with those there are. Files are checked by who loads them.

    Raises:
        InvalidInputError: no such policy.
    """
    from policy.rules.registry import RIVALS

    if name.endswith(".onnx") or name in RIVALS or name in REPLAYED or (replayed and name == ORACLE):
        return
    names = ", ".join(offered(replayed=replayed))
    raise InvalidInputError(f"{option} {name}: no such policy; choose from {names}, or give a .onnx file")
