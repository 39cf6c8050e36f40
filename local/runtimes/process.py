"""What both function runtimes share: where they are installed, their errors, the environment a function starts with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".venv313" / "bin" / "python"
EMULATOR: Final = ROOT / ".tools" / "bin" / "aws-lambda-rie"
#: what a user's own account or settings would change
_FOREIGN: Final = (
    *("AWS_", "AZURE_", "AZUREML_", "SAGEMAKER_", "SM_", "OPPORTUNE_", "PYTHON", "POWERTOOLS_", "IDENTITY_", "MSI_"),
)


class FunctionError(Exception):
    """The function raised; the message is its error as its cloud reports it."""


class RuntimeEndedError(FunctionError):
    """The function's process ended or did not answer in time; the message names its log."""


def clean_env(env: Mapping[str, str]) -> dict[str, str]:
    """`env` over this process's environment without what belongs to the clouds."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | dict(env)


def deployed_env(*prefixes: str) -> dict[str, str]:
    """What a deployment would set on its functions: this process's OPPORTUNE_ variables and those of `prefixes`."""
    return {name: value for name, value in os.environ.items() if name.startswith(("OPPORTUNE_", *prefixes))}
