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
    return serverless_wsgi.handle_request(web_app("aws"), event, context)
