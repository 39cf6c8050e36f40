"""Azure Functions: HTTP -> the Flask app."""

from __future__ import annotations

import functools
import logging
from typing import Any

import azure.functions as func

from functions.bootstrap import web_app

log = logging.getLogger("opportune.functions.azure")
blueprint = func.Blueprint()


class Middleware(func.WsgiMiddleware):
    """The library's middleware without its two traps.

    It shares one `wsgi.errors` buffer between all requests and raises once anything was ever written to it; and it
    raises for every 5xx, which turns our JSON and Retry-After into an empty 500.
    """

    def _handle_errors(self, wsgi_response: Any) -> None:
        """Log what the app wrote to `wsgi.errors`; hand every response on as it is."""
        if text := self._wsgi_error_buffer.getvalue().strip():
            log.error("wsgi.errors: %s", text, extra={"action": "http"})
            self._wsgi_error_buffer.seek(0)
            self._wsgi_error_buffer.truncate()


@functools.cache
def middleware() -> Middleware:
    """Built at the first request."""
    return Middleware(web_app("azure").wsgi_app)


@blueprint.function_name("http")
@blueprint.route(
    route="{*path}",
    methods=list(func.HttpMethod),  # what there is no route for is the app's to say
    auth_level=func.AuthLevel.ANONYMOUS,
)
def http(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """One request."""
    return middleware().handle(req, context)
