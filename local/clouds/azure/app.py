"""Reads a Functions app the way the host does: function_app.py, its triggers, host.json."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import azure.functions as func

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

    @classmethod
    def read(cls, path: Path) -> HostConfig:
        """Raises InvalidInputError when the file is not JSON."""
        try:
            extensions = json.loads(path.read_text()).get("extensions", {})
        except (OSError, ValueError) as exc:
            raise InvalidInputError(f"{path} cannot be read: {exc}") from exc
        queues = extensions.get("queues", {})
        hours, minutes, seconds = queues.get("visibilityTimeout", "0:0:0").split(":")
        return cls(
            route_prefix=extensions.get("http", {}).get("routePrefix", "api").strip("/"),
            max_dequeue_count=queues.get("maxDequeueCount", 5),
            batch_size=queues.get("batchSize", 16),
            visibility_timeout_s=int(hours) * 3600 + int(minutes) * 60 + float(seconds),
            base64=queues.get("messageEncoding", "base64") == "base64",
        )


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the app with its one trigger."""

    name: str
    trigger: str  # timerTrigger, queueTrigger, eventGridTrigger, httpTrigger
    argument: str
    binding: Mapping[str, Any]
    call: Callable[..., Any]

    def invoke(self, value: Any) -> Any:
        """Call it with the trigger's value, and the context when it wants one; what it raises goes through."""
        arguments = {self.argument: value}
        if "context" in inspect.signature(self.call).parameters:
            arguments["context"] = InvocationContext(self.name)
        answer = self.call(**arguments)
        return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


def index(module: str) -> list[Function]:
    """The functions of the app in `module` (its attribute `app`).

    Raises:
        InvalidInputError: a function has a binding that the embedded host does not have.
    """
    app = importlib.import_module(module).app
    found = []
    for function in app.get_functions():
        name, bindings = function.get_function_name(), function.get_dict_repr()["bindings"]
        triggers = [b for b in bindings if b["type"] in _TRIGGERS]
        others = {b["type"] for b in bindings if b["type"] not in (*_TRIGGERS, "http")}
        if len(triggers) != 1 or others:
            raise InvalidInputError(f"function {name}: the embedded host has no {', '.join(others) or 'such trigger'}")
        (binding,) = triggers
        found.append(Function(name, binding["type"], binding["name"], binding, function.get_user_function()))
    return found


def resolve(text: str, env: Mapping[str, str] = os.environ) -> str:
    """`text` with each %SETTING% replaced. Raises ConfigurationError for one that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in env:
            raise ConfigurationError(name, None, f"a value for the binding {text!r}")
        return env[name]

    return _SETTING.sub(value, text)


class _Trace(func._abc.TraceContext):
    """A fresh W3C trace context per call."""

    def __init__(self) -> None:
        self._parent = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-00"

    @property
    def trace_state(self) -> str:
        return ""

    @property
    def trace_parent(self) -> str:
        return self._parent

    @property
    def attributes(self) -> dict[str, str]:
        return {}


class _Retry(func._abc.RetryContext):
    """No retry policy is in force."""

    @property
    def retry_count(self) -> int:
        return 0

    @property
    def max_retry_count(self) -> int:
        return 0

    @property
    def exception(self) -> Any:
        return None


class InvocationContext(func.Context):
    """What the host hands to a function as `context`."""

    def __init__(self, function_name: str) -> None:
        self._name = function_name
        self._id = str(uuid.uuid4())
        self._local = threading.local()
        self._local.invocation_id = self._id
        self._trace, self._retry = _Trace(), _Retry()

    @property
    def invocation_id(self) -> str:
        return self._id

    @property
    def thread_local_storage(self) -> Any:
        return self._local

    @property
    def function_name(self) -> str:
        return self._name

    @property
    def function_directory(self) -> str:
        return str(Path.cwd())

    @property
    def trace_context(self) -> _Trace:
        return self._trace

    @property
    def retry_context(self) -> _Retry:
        return self._retry
