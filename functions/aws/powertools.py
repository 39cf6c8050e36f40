"""What the four Lambda functions share: powertools logging and tracing.

The project's loggers are children of "opportune", the name of the powertools logger, so their events come out as its
JSON, with the request's id. Idempotency is not powertools' here: a decision is settled by a conditional write per slot
and a job by one per job_id, in the same table, and a second cloud must agree with both; a cache of responses in front
would add a write per call and protect nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger

Handler = Callable[[Any, Any], Any]

logger = Logger(service="opportune", use_rfc3339=True, utc=True)


def traced(handler: Handler) -> Handler:
    """The handler under powertools' tracer, on Lambda and unless POWERTOOLS_TRACE_DISABLED is set.

    The X-Ray SDK builds an SDK client while it is imported, half a second of a cold start. So a function whose
    tracing is switched off does not import it; powertools alone would.
    """
    off = os.environ.get("POWERTOOLS_TRACE_DISABLED", "").lower() in ("1", "true", "yes", "on", "y", "t")
    if off or "LAMBDA_TASK_ROOT" not in os.environ:
        return handler
    from aws_lambda_powertools import Tracer

    traced_handler: Handler = Tracer(service="opportune").capture_lambda_handler(handler, capture_response=False)
    return traced_handler
