"""Lambda: the HTTP API -> the Flask app."""

from __future__ import annotations

from typing import Any

import serverless_wsgi

from functions.aws.powertools import logger, traced
from functions.bootstrap import web_app


@logger.inject_lambda_context(clear_state=True)
@traced
def handler(event: dict[str, Any], context: Any) -> Any:
    """One request in API Gateway's form, format 1.0 or 2.0."""
    return serverless_wsgi.handle_request(web_app("aws"), without_stage(event), context)


def without_stage(event: dict[str, Any]) -> dict[str, Any]:
    """The event as the app's own addresses have it: a stage with a name stands in front of the path in format 2.0."""
    prefix = f"/{(event.get('requestContext') or {}).get('stage') or '$default'}"
    path = event.get("rawPath") or ""
    if path != prefix and not path.startswith(f"{prefix}/"):
        return event
    return {**event, "rawPath": path.removeprefix(prefix) or "/"}
