"""Policies by name: which of them a function can run, and where the networks' files are.

A function's package holds `policy/` without `policy/training/`, numpy and onnxruntime. What needs more, or lies in
`policy/training/`, runs in `opportune backtest` alone. Importing this module loads no library, so that a function may
check its settings at start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from policy.rules.registry import RULES
from shared.errors import InvalidInputError

_HERE: Final = Path(__file__).parent
#: networks that are in a function's package -> their files
SHIPPED: Final = {"ppo": _HERE / "models" / "ppo.onnx"}
#: the source paper's network, to compare with: loadable where `policy/training/` is -> its file
REFERENCE: Final = {"ppo-paper": _HERE / "training" / "models" / "ppo-paper.onnx"}
#: baselines of `policy.training.baselines.registry`, by the library that a function's package lacks
BACKTEST_ONLY: Final = {
    "adwin": "river",
    "kswin": "river",
    "page-hinkley": "river",
    "upf": "scikit-learn",
    "retrainopt-learned": "retrainopt",
    "amuse": "",  # numpy alone, but its weights are not in the package
}
#: the names that a live service may be set to, besides the path of an .onnx file
DEPLOYABLE: Final = (*SHIPPED, *RULES)


def check_deployable(name: str) -> None:
    """Raise unless a function can run the policy `name`: one of DEPLOYABLE, or the path of an .onnx file that exists.

    Raises:
        InvalidInputError: it cannot; one line says which policy, why, and which ones run.
    """
    if name.endswith(".onnx"):
        if not Path(name).is_file():
            raise InvalidInputError(f"policy {name}: there is no such file")
        return
    if name in DEPLOYABLE:
        return
    choice = f"choose from: {', '.join(DEPLOYABLE)}, or give the path of an .onnx file"
    if name not in BACKTEST_ONLY and name not in REFERENCE:
        raise InvalidInputError(f"no policy named {name!r}; {choice}")
    lacking = f"its library, {BACKTEST_ONLY[name]}," if BACKTEST_ONLY.get(name) else "its file"
    raise InvalidInputError(
        f"policy {name} cannot be deployed: {lacking} is not in a function's package; it runs in `opportune backtest`. "
        f"For a live service {choice}"
    )
