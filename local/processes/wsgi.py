"""Runs a WSGI application as one of the embedded servers, until a signal ends it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from types import FrameType
from typing import Any

from waitress import create_server

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

#: an API Gateway refuses bodies above this
MAX_BODY_BYTES = 10 * 1024 * 1024


def serve(app: WsgiApp, port: int, threads: int = 16) -> None:
    """Serve on the loopback interface until SIGTERM or Ctrl-C."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    server = create_server(
        app, host="127.0.0.1", port=port, threads=threads, ident=None, max_request_body_size=MAX_BODY_BYTES
    )
    try:
        server.run()
    finally:
        server.close()


def request_headers(environ: dict[str, Any]) -> dict[str, str]:
    """Header names in lower case, as both clouds hand them to functions."""
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = environ[key]
    return headers


def request_body(environ: dict[str, Any]) -> bytes:
    """The whole body; the server has already unchunked and bounded it."""
    return bytes(environ["wsgi.input"].read())


def status_line(status: int) -> str:
    """`404 Not Found`; a code that nobody registered is called Unknown."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
