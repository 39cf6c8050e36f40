"""Azure's own Python worker library over an unpacked package: python local/runtimes/azure_worker.py PACKAGE (3.13).

Indexes function_app.py as the Functions host asks it to, writes what it found as one JSON line, then reads one
invocation per line and answers each with one when it is done:

    {"number": 1, "function": "retrain", "inputs": {"message": ["string", "..."]}, "metadata": {"Id": ["string", "1"]}}
    {"number": 1, "ok": true, "returned": ..., "error": null}

Bytes, and the bodies of HTTP requests and answers, travel as base64. The host speaks gRPC with the worker; plain
classes stand in for its messages here. Inner names of the library are used, so its version is fixed in
requirements/runtimes.in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from types import SimpleNamespace
from typing import Any, Final, TextIO

#: BindingInfo's numbers in the protocol
_NUMBERS: Final = {"undefined": 0, "out": 1, "inout": 2}


class _Kind(type):
    """A message class; an enumerated value is its number where the library compares it, else its name."""

    def __getattr__(cls, name: str) -> str | int:
        if name.startswith("__"):
            raise AttributeError(name)
        return _NUMBERS.get(name, name)


class _Message(metaclass=_Kind):
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class _Protos:
    """Any message of the protocol by its name."""

    def __getattr__(self, name: str) -> _Kind:
        return _Kind(name, (_Message,), {})


def _plain(datum: Any) -> Any:
    """A Datum as JSON can hold it."""
    value = getattr(datum, "value", datum)
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _datum(kind: str, value: Any) -> Any:
    from azure_functions_runtime.bindings.datumdef import Datum

    if kind == "http":
        text = {name: Datum(value[name], "string") for name in ("method", "url")}
        tables = {
            name: {key: Datum(part, "string") for key, part in value.get(name, {}).items()}
            for name in ("headers", "params", "query")
        }
        return Datum({**text, **tables, "body": Datum(base64.b64decode(value.get("body", "")), "bytes")}, "http")
    if kind == "bytes":
        value = base64.b64decode(value)
    return Datum(value, kind)


async def _serve(package: str, requests: TextIO, answers: TextIO) -> None:
    from azure_functions_runtime import handle_event, native_invocation
    from azure_functions_runtime.utils.threadpool import start_threadpool_executor

    def tell(answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    properties = {"protos": _Protos(), "host": "127.0.0.1"}
    init = SimpleNamespace(capabilities={}, function_app_directory=package)
    request = SimpleNamespace(request=SimpleNamespace(worker_init_request=init), properties=properties)
    started = await handle_event.worker_init_request(request)
    if started.result.status != "Success":
        tell({"functions": [], "error": started.result.exception.message + started.result.exception.stack_trace})
        return
    start_threadpool_executor()
    metadata = (await handle_event.functions_metadata_request(request)).function_metadata_results
    ids = {found.name: found.function_id for found in metadata}
    bindings = {found.name: [json.loads(binding) for binding in found.raw_bindings] for found in metadata}
    tell({"functions": bindings, "error": None})

    async def run(asked: dict[str, Any]) -> None:
        ok, returned, _, error, _ = await native_invocation.invocation_request_native(
            str(asked["number"]),
            ids[asked["function"]],
            [(name, _datum(*pair)) for name, pair in asked["inputs"].items()],
            {name: _datum(*pair) for name, pair in asked.get("metadata", {}).items()},
        )
        tell({"number": asked["number"], "ok": ok, "returned": _plain(returned), "error": error})

    loop, running = asyncio.get_running_loop(), set()
    while line := await loop.run_in_executor(None, requests.readline):
        task = loop.create_task(run(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


def main() -> None:
    """Serve until standard input ends."""
    package = sys.argv[1]
    # The order of the cloud: the app's packages before the worker's.
    sys.path[:0] = [f"{package}/.python_packages/lib/site-packages", package]
    answers, sys.stdout = sys.stdout, sys.stderr
    asyncio.run(_serve(package, sys.stdin, answers))


if __name__ == "__main__":
    main()
