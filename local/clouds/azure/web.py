"""Azure Functions' HTTP triggers and Event Grid webhook, as a WSGI application."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from local.clouds.azure.app import Function, HostConfig
from local.processes.wsgi import StartResponse, request_body, request_headers, status_line
from local.runtimes import FunctionError

log = logging.getLogger(__name__)

#: what an event of the Event Grid schema always has
EVENT_FIELDS: Final = frozenset({"id", "topic", "subject", "eventType", "eventTime", "data", "dataVersion"})
WEBHOOK: Final = "/runtime/webhooks/eventgrid"
Answer = tuple[int, list[tuple[str, str]], bytes]


class Web:
    """Routes requests to functions as the host does, as a WSGI application."""

    def __init__(self, functions: list[Function], config: HostConfig) -> None:
        http = [f for f in functions if f.trigger == "httpTrigger"]
        # The more literal route wins.
        http.sort(key=lambda f: ("{*" in _route(f), "{" in _route(f)))
        self._routes = [(_pattern(config.route_prefix, _route(f)), f) for f in http]
        self._events = {f.name: f for f in functions if f.trigger == "eventGridTrigger"}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = self._answer(environ)
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status_line(status), [*headers, ("content-length", str(len(body)))])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == WEBHOOK:
            return self._event_grid(environ)
        for pattern, function in self._routes:
            match = pattern.fullmatch(path)
            if match and method in _methods(function):
                return self._call(function, environ, match.groupdict(""))
        return 404, [], b""

    def _call(self, function: Function, environ: dict[str, Any], route: dict[str, str]) -> Answer:
        headers, query = request_headers(environ), environ.get("QUERY_STRING", "")
        host = headers.get("host", "localhost")
        url = f"http://{host}{environ['PATH_INFO']}" + (f"?{query}" if query else "")
        request = {
            "method": environ["REQUEST_METHOD"],
            "url": url,
            "headers": headers,
            "query": dict(parse_qsl(query, keep_blank_values=True)),
            "params": {name: unquote(value) for name, value in route.items()},
            "body": base64.b64encode(request_body(environ)).decode(),
        }
        try:
            answer = function.invoke("http", request)
        except FunctionError as exc:
            log.error("%s failed for %s %s: %s", function.name, environ["REQUEST_METHOD"], environ["PATH_INFO"], exc)
            return 500, [], b""
        if isinstance(answer, str):
            return 200, [("content-type", "text/plain; charset=utf-8")], answer.encode()
        if not isinstance(answer, dict) or "status_code" not in answer:
            log.error("%s answered with %.200r, not an HttpResponse", function.name, answer)
            return 500, [], b""
        found = [(str(name), str(value)) for name, value in answer["headers"].items()]
        return int(answer["status_code"]), found, base64.b64decode(answer["body"] or "")

    def _event_grid(self, environ: dict[str, Any]) -> Answer:
        """Event Grid's deliveries: 200 when every event was handled, else 500, and Event Grid tries again."""
        wanted = dict(parse_qsl(environ.get("QUERY_STRING", ""))).get("functionName", "")
        function = self._events.get(wanted)
        if function is None:
            return 404, [], f"no Event Grid function {wanted!r}".encode()
        try:
            events = json.loads(request_body(environ))
            events = events if isinstance(events, list) else [events]
            if request_headers(environ).get("aeg-event-type") == "SubscriptionValidation":
                code = events[0]["data"]["validationCode"]
                return 200, [("content-type", "application/json")], json.dumps({"validationResponse": code}).encode()
            missing = {name for event in events for name in EVENT_FIELDS - set(event)}
        except (ValueError, KeyError, TypeError, IndexError) as exc:
            return 400, [], f"not an Event Grid delivery: {exc!r}".encode()
        if missing:
            return 400, [], f"not an Event Grid delivery: {', '.join(sorted(missing))} missing".encode()
        for event in events:
            try:
                function.invoke("json", json.dumps(event))
            except FunctionError as exc:
                log.error("%s failed for event %s: %s", function.name, event["id"], exc)
                return 500, [], b""
        return 200, [], b""


def _route(function: Function) -> str:
    return str(function.binding.get("route") or function.name).strip("/")


def _methods(function: Function) -> set[str]:
    return {getattr(method, "value", str(method)).upper() for method in function.binding.get("methods") or ()} or {
        "GET",
        "POST",
    }


def _pattern(prefix: str, route: str) -> re.Pattern[str]:
    """`{name}` takes one segment, `{*name}` the rest of the path, also an empty one."""
    built = f"/{re.escape(prefix)}" if prefix else ""
    for part in route.split("/"):
        if part.startswith("{*"):
            built += rf"(?:/(?P<{part[2:-1]}>.*))?"
        elif part.startswith("{"):
            built += rf"/(?P<{part[1:-1].partition(':')[0]}>[^/]+)"
        else:
            built += "/" + re.escape(part)
    return re.compile(built, re.DOTALL)
