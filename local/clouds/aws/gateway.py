"""API Gateway's HTTP API (payload format 2.0) in front of one Lambda function, as a WSGI application."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import logging
import time
import uuid
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

from local.clouds.aws.sdk import ACCOUNT
from local.processes.wsgi import StartResponse, request_body, request_headers, status_line
from local.runtimes import FunctionError, LambdaFunction

log = logging.getLogger(__name__)

_TEXT: Final = ("text/", "application/json", "application/xml", "application/javascript")


class Gateway:
    """Turns requests into events and answers back into responses."""

    def __init__(self, function: LambdaFunction) -> None:
        self._function = function

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, headers, body = response_of(self._function.invoke(event_of(environ)))
        except (FunctionError, ValueError, TypeError, AttributeError) as exc:  # it raised, or answered nonsense
            log.error("%s %s: %s: %s", environ["REQUEST_METHOD"], environ["PATH_INFO"], self._function.name, exc)
            status, headers, body = 500, [("content-type", "application/json")], b'{"message":"Internal Server Error"}'
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status_line(status), [*headers, ("content-length", str(len(body)))])
        return [body]


def event_of(environ: dict[str, Any]) -> dict[str, Any]:
    """The event of a request."""
    headers = request_headers(environ)
    body = request_body(environ)
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    query = environ.get("QUERY_STRING", "")
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": headers.get("host", "localhost"),
            "domainPrefix": "local",
            "http": {
                "method": environ["REQUEST_METHOD"],
                "path": path,
                "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
                "sourceIp": environ.get("REMOTE_ADDR", "127.0.0.1"),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": dt.datetime.fromtimestamp(now, dt.UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": round(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies := headers.pop("cookie", ""):
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if query:
        parameters: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
        event["queryStringParameters"] = parameters
    if body:
        event["body"], event["isBase64Encoded"] = _encoded(body, headers.get("content-type", ""))
    return event


def _encoded(body: bytes, content_type: str) -> tuple[str, bool]:
    if content_type.lower().startswith(_TEXT):
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def response_of(answer: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of a function's answer; one without a status code is a JSON body.

    Raises:
        ValueError, TypeError, AttributeError: the answer is not one that a gateway can pass on.
    """
    if not isinstance(answer, dict) or "statusCode" not in answer:
        body = answer if isinstance(answer, str) else json.dumps(answer)
        return 200, [("content-type", "application/json")], body.encode()
    headers = [(str(name), str(value)) for name, value in (answer.get("headers") or {}).items()]
    for name, values in (answer.get("multiValueHeaders") or {}).items():
        headers += [(name, str(value)) for value in values]
    headers += [("set-cookie", cookie) for cookie in answer.get("cookies") or []]
    raw = answer.get("body") or ""
    try:
        body_bytes = base64.b64decode(raw, validate=True) if answer.get("isBase64Encoded") else raw.encode()
    except binascii.Error as exc:
        raise ValueError(f"the body is not base64: {exc}") from exc
    return int(answer["statusCode"]), headers, body_bytes
