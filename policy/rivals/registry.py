"""Rules by name. A rule's module is imported only when it is asked for, so that numpy is all the simple ones need."""

from __future__ import annotations

import importlib
from typing import Any, Final

from policy.history import Decider
from shared.errors import InvalidInputError

#: name on the command line -> (module, class)
RIVALS: Final = {
    "never": ("policy.rivals.never", "Never"),
    "always": ("policy.rivals.always", "Always"),
    "static": ("policy.rivals.static", "Static"),
    "periodic": ("policy.rivals.periodic", "Periodic"),
    "threshold": ("policy.rivals.threshold", "Threshold"),
    "adwin": ("policy.rivals.detectors", "Adwin"),
    "kswin": ("policy.rivals.detectors", "Kswin"),
    "page-hinkley": ("policy.rivals.detectors", "PageHinkley"),
    "cusum": ("policy.rivals.cusum", "Cusum"),
    "cara-t": ("policy.rivals.cara", "CaraThreshold"),
    "cara-ct": ("policy.rivals.cara", "CaraCumulative"),
    "cara-p": ("policy.rivals.cara", "CaraPeriodic"),
    "regret": ("policy.rivals.regret", "Regret"),
    "modyn": ("policy.rivals.modyn", "Modyn"),
    "rule": ("policy.rivals.portfolio", "Portfolio"),
    "upf": ("policy.rivals.upf", "Upf"),
    "amuse": ("policy.rivals.amuse", "Amuse"),
    "retrainopt-learned": ("policy.rivals.retrainopt_learned", "RetrainoptLearned"),
}


def make(name: str, **parameters: Any) -> Decider:
    """A fresh decider of that name; without parameters it uses the ones tuned per cost ratio.

    Raises:
        InvalidInputError: no such rule, or a parameter it does not have.
    """
    if name not in RIVALS:
        raise InvalidInputError(f"no rule named {name!r}; choose from: {', '.join(sorted(RIVALS))}")
    module, cls = RIVALS[name]
    try:
        decider: Decider = getattr(importlib.import_module(module), cls)(**parameters)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"rule {name}: {exc}") from exc
    return decider
