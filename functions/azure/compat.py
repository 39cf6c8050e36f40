"""Inner names of azure-functions that are used here, each with its reason. A test fails when one of them changes.

azure-functions 1.23: `WsgiMiddleware._handle_errors` and `_wsgi_error_buffer` (azure/functions/_http_wsgi.py). There is
no public way to change what it does with `wsgi.errors` and with a 5xx.
"""

from __future__ import annotations

import logging
from typing import Any

import azure.functions as func

log = logging.getLogger("opportune.functions.azure")


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
