"""Rules that a function can run, by name: numpy is all they need. Research baselines: `policy.training.baselines`.

A rule's module is imported only when it is asked for, so that a name can be checked without loading numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from shared.errors import InvalidInputError

if TYPE_CHECKING:
    from policy.history import Decider

#: the rule that picks among the others per cost ratio
PORTFOLIO: Final = "rule"
#: name on the command line -> (module, class)
RULES: Final = {
    "never": ("policy.rules.never", "Never"),
    "always": ("policy.rules.always", "Always"),
    "static": ("policy.rules.static", "Static"),
    "periodic": ("policy.rules.periodic", "Periodic"),
    "threshold": ("policy.rules.threshold", "Threshold"),
    "cusum": ("policy.rules.cusum", "Cusum"),
    "cara-t": ("policy.rules.cara", "CaraThreshold"),
    "cara-ct": ("policy.rules.cara", "CaraCumulative"),
    "cara-p": ("policy.rules.cara", "CaraPeriodic"),
    "regret": ("policy.rules.regret", "Regret"),
    "modyn": ("policy.rules.modyn", "Modyn"),
    PORTFOLIO: ("policy.rules.portfolio", "Portfolio"),
}


def make(name: str, **parameters: Any) -> Decider:
    """A fresh decider of that name; without parameters it uses the ones tuned per cost ratio.

    Raises:
        InvalidInputError: no such rule, or a parameter it does not have.
    """
    if name == PORTFOLIO:
        parameters |= {"make": make, "among": frozenset(RULES) - {PORTFOLIO}}
    return made(RULES, name, parameters)


def made(table: dict[str, tuple[str, str]], name: str, parameters: dict[str, Any]) -> Decider:
    """As `make`, from a table of name -> (module, class)."""
    if name not in table:
        raise InvalidInputError(f"no rule named {name!r}; choose from: {', '.join(sorted(table))}")
    module, cls = table[name]
    try:
        decider: Decider = getattr(importlib.import_module(module), cls)(**parameters)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"rule {name}: {exc}") from exc
    return decider
