"""Calls the real Lambda handlers: found by dotted name at their first call, with a context like Lambda's."""

from __future__ import annotations

import functools
import importlib
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

ACCOUNT: Final = "123456789012"
Handler = Callable[[Any, Any], Any]


class LambdaContext:
    """What Lambda hands to a handler as its second argument."""

    def __init__(self, function_name: str, timeout_s: float) -> None:
        self.function_name = function_name
        self.function_version = "$LATEST"
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{function_name}"
        self.memory_limit_in_mb = "512"
        self.aws_request_id = str(uuid.uuid4())
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = "local"
        self.identity = None
        self.client_context = None
        self._deadline = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda would end the function. The embedded host does not end it."""
        return max(0, round(1000 * (self._deadline - time.monotonic())))


@functools.cache
def handler_named(dotted: str) -> Handler:
    """The function behind `package.module.name`, imported at its first use, as a cold start does."""
    module, _, name = dotted.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert callable(found), f"{dotted} is not a function"
    return found


def invoke(dotted: str, event: Any, timeout_s: float = 60.0) -> Any:
    """Call the handler; what it raises goes through."""
    name = "opportune-" + dotted.split(".")[-2].replace("_", "-")
    return handler_named(dotted)(event, LambdaContext(name, timeout_s))
