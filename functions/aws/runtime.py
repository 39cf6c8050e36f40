"""What the four Lambda functions share: powertools logging and tracing.

The project's loggers are children of "opportune", the name of the powertools logger, so their events come out as its
JSON, with the request's id. Idempotency is not powertools' here: a decision is settled by a conditional write per slot
and a job by one per job_id, in the same table, and a second cloud must agree with both; a cache of responses in front
would add a write per call and protect nothing more.
"""

from __future__ import annotations

from aws_lambda_powertools import Logger, Tracer

logger = Logger(service="opportune", use_rfc3339=True, utc=True)
tracer = Tracer(service="opportune")
