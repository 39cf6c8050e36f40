"""Secrets by reference: a variable `ssm:/opportune/prod/prometheus-token` stands for that parameter's value.

The secret itself is in no template, no console page and no deployment log. Azure needs nothing like it: the Functions
host resolves Key Vault references before the process starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.errors import ConfigurationError

REFERENCE: Final = "ssm:"


def resolved(env: Mapping[str, str]) -> dict[str, str]:
    """`env` with every reference replaced by its value; read once per process.

    Raises:
        ConfigurationError: a parameter cannot be read; the message names the variable, never a value.
    """
    references = {
        name: value.removeprefix(REFERENCE)
        for name, value in env.items()
        if name.startswith("OPPORTUNE_") and value.startswith(REFERENCE)
    }
    if not references:
        return dict(env)
    from aws_lambda_powertools.utilities.parameters import get_parameter
    from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

    values = dict(env)
    for variable, path in references.items():
        try:
            values[variable] = str(get_parameter(path, decrypt=True))
        except GetParameterError as exc:
            allowed = "ssm:<name> of a parameter that the function's role may read (secretPath in serverless.yml)"
            raise ConfigurationError(variable, f"{REFERENCE}{path}", f"{allowed}: {exc}") from exc
    return values
