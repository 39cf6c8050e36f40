"""Every policy that a backtest can run, by name: the rules that ship, the research baselines, and the networks.

The baselines need river, scikit-learn or retrainopt, or weights that are not in a function's package: a live service
cannot be set to them (`policy.catalogue`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from policy.catalogue import REFERENCE, SHIPPED
from policy.history import Decider
from policy.policies import Policy, load_policy
from policy.rules import registry
from policy.rules.registry import RULES
from policy.training.baselines.warm_up import warm_up_of
from policy.training.evaluation.backtest import OPTIMAL, Policies
from policy.training.simulator.trace import Trace
from shared.errors import InvalidInputError

#: name on the command line -> (module, class)
RESEARCH: Final = {
    "adwin": ("policy.training.baselines.detectors", "Adwin"),
    "kswin": ("policy.training.baselines.detectors", "Kswin"),
    "page-hinkley": ("policy.training.baselines.detectors", "PageHinkley"),
    "upf": ("policy.training.baselines.upf", "Upf"),
    "amuse": ("policy.training.baselines.amuse", "Amuse"),
    "retrainopt-learned": ("policy.training.baselines.retrainopt_learned", "RetrainoptLearned"),
}
BASELINES: Final = {**RULES, **RESEARCH}
NETWORKS: Final = (*SHIPPED, *REFERENCE)
#: baselines that are fitted to the first quarter of the trace they are run on
FITTED: Final = ("retrainopt-learned", "upf")


def make(name: str, **parameters: Any) -> Decider:
    """A fresh decider of that name; without parameters it uses the ones tuned per cost ratio.

    Raises:
        InvalidInputError: no such baseline, or a parameter it does not have.
    """
    return registry.make(name, **parameters) if name in RULES else registry.made(BASELINES, name, parameters)


def check_policy(policy: str) -> None:
    """Raise InvalidInputError unless `policy` is a known name or a usable .onnx file."""
    if policy.endswith(".onnx") or policy in NETWORKS:
        _network(policy)
        return
    known = {*BASELINES, *NETWORKS, OPTIMAL}
    if policy not in known:
        names = ", ".join(sorted(known))
        raise InvalidInputError(f"--policy {policy}: no such policy; choose from {names}, or give a .onnx file")


def decider_for(policy: str, trace: Trace) -> Decider:
    """A fresh decider of that name for a run over `trace`; fitted baselines see the first quarter of it."""
    if policy.endswith(".onnx") or policy in NETWORKS:
        return _network(policy)
    if policy in FITTED:
        return make(policy, warm_up=warm_up_of(trace))
    return make(policy)


@cache
def _network(policy: str) -> Policy:
    """One session serves a whole process; a replay resets it first."""
    return load_policy(policy)


#: what `opportune backtest` and the benchmarks choose from
POLICIES: Final = Policies(check_policy, decider_for)
