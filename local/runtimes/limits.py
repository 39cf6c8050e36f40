"""What a deployment gives each function, read from what is deployed: serverless.yml, and Azure's template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from local.runtimes.process import ROOT

AWS: Final = ROOT / "serverless.yml"
AZURE: Final = ROOT / "infra" / "azure" / "main.json"


class Limits(NamedTuple):
    """Of one function."""

    memory_mib: float
    timeout_s: float


class _Loader(yaml.SafeLoader):
    """CloudFormation's tags are of no interest here."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def lambda_limits(path: Path = AWS) -> dict[str, Limits]:
    """Name of a function in serverless.yml -> its limits."""
    deployed = yaml.load(path.read_text(), _Loader)
    default = deployed["provider"]
    return {
        name: Limits(float(one.get("memorySize", default["memorySize"])), float(one.get("timeout", default["timeout"])))
        for name, one in deployed["functions"].items()
    }


def instance_memory_mib(path: Path = AZURE) -> float:
    """Of an instance of the function app, which all its functions share."""
    (found,) = set(_values(json.loads(path.read_text()), "instanceMemoryMB"))
    return float(found)


def _values(part: Any, name: str) -> list[Any]:
    if isinstance(part, dict):
        own = [part[name]] if name in part else []
        return own + [value for below in part.values() for value in _values(below, name)]
    return [value for below in part for value in _values(below, name)] if isinstance(part, list) else []
