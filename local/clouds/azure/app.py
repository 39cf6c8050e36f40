"""Reads an Azure Functions app the way the host does: the functions that the worker indexed, and host.json."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.runtimes import AzureWorker
from shared.errors import ConfigurationError, InvalidInputError

_SETTING: Final = re.compile(r"%([^%]+)%")
_TRIGGERS: Final = ("timerTrigger", "queueTrigger", "eventGridTrigger", "httpTrigger")


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What the host reads from host.json, with its defaults."""

    route_prefix: str = "api"
    max_dequeue_count: int = 5
    batch_size: int = 16
    visibility_timeout_s: float = 0.0  # how long a failed message stays hidden
    base64: bool = True
    function_timeout_s: float = 300.0

    @classmethod
    def read(cls, path: Path) -> HostConfig:
        """Raises InvalidInputError when the file is not JSON."""
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise InvalidInputError(f"{path} cannot be read: {exc}") from exc
        extensions = content.get("extensions", {})
        queues = extensions.get("queues", {})
        return cls(
            route_prefix=extensions.get("http", {}).get("routePrefix", "api").strip("/"),
            max_dequeue_count=queues.get("maxDequeueCount", 5),
            batch_size=queues.get("batchSize", 16),
            visibility_timeout_s=_seconds(queues.get("visibilityTimeout", "0:0:0")),
            base64=queues.get("messageEncoding", "base64") == "base64",
            function_timeout_s=_seconds(content.get("functionTimeout", "0:5:0")),
        )


def _seconds(span: str) -> float:
    hours, minutes, seconds = span.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the app with its one trigger."""

    name: str
    trigger: str  # timerTrigger, queueTrigger, eventGridTrigger, httpTrigger
    argument: str
    binding: Mapping[str, Any]
    worker: AzureWorker
    timeout_s: float

    def invoke(self, kind: str, value: Any, metadata: Mapping[str, Any] | None = None) -> Any:
        """Call it with the trigger's value. Raises FunctionError."""
        return self.worker.invoke(self.name, {self.argument: [kind, value]}, metadata, self.timeout_s)


def functions_of(worker: AzureWorker, config: HostConfig) -> list[Function]:
    """The functions that the worker indexed.

    Raises:
        InvalidInputError: a function has a binding that the embedded host does not have.
    """
    found = []
    for name, bindings in worker.functions.items():
        triggers = [b for b in bindings if b["type"] in _TRIGGERS]
        others = {b["type"] for b in bindings if b["type"] not in (*_TRIGGERS, "http")}
        if len(triggers) != 1 or others:
            raise InvalidInputError(f"function {name}: the embedded host has no {', '.join(others) or 'such trigger'}")
        (binding,) = triggers
        found.append(Function(name, binding["type"], binding["name"], binding, worker, config.function_timeout_s))
    return found


def resolve(text: str, env: Mapping[str, str] = os.environ) -> str:
    """`text` with each %SETTING% replaced. Raises ConfigurationError for one that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in env:
            raise ConfigurationError(name, None, f"a value for the binding {text!r}")
        return env[name]

    return _SETTING.sub(value, text)
