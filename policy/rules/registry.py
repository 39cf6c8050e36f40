"""Rules by name. A rule's module is imported only when it is asked for, so that numpy is all the simple ones need."""

from __future__ import annotations

import importlib
from typing import Any, Final

from policy.history import Decider
from shared.errors import InvalidInputError

#: name on the command line -> (module, class)
RIVALS: Final = {
    "never": ("policy.rules.never", "Never"),
    "always": ("policy.rules.always", "Always"),
    "static": ("policy.rules.static", "Static"),
    "periodic": ("policy.rules.periodic", "Periodic"),
    "threshold": ("policy.rules.threshold", "Threshold"),
    "adwin": ("policy.training.baselines.detectors", "Adwin"),
    "kswin": ("policy.training.baselines.detectors", "Kswin"),
    "page-hinkley": ("policy.training.baselines.detectors", "PageHinkley"),
    "cusum": ("policy.rules.cusum", "Cusum"),
    "cara-t": ("policy.rules.cara", "CaraThreshold"),
    "cara-ct": ("policy.rules.cara", "CaraCumulative"),
    "cara-p": ("policy.rules.cara", "CaraPeriodic"),
    "regret": ("policy.rules.regret", "Regret"),
    "modyn": ("policy.rules.modyn", "Modyn"),
    "rule": ("policy.rules.portfolio", "Portfolio"),
    "upf": ("policy.training.baselines.upf", "Upf"),
    "amuse": ("policy.training.baselines.amuse", "Amuse"),
    "retrainopt-learned": ("policy.training.baselines.retrainopt_learned", "RetrainoptLearned"),
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
