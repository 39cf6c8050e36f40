"""Lambda: EventBridge's "SageMaker Training Job State Change" -> gate and roll-out.

The event only says which job to look at: its status is read from SageMaker, so that late, repeated and reordered
events all lead to the same.
"""

from __future__ import annotations

import time
from typing import Any

from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source

from functions.aws.powertools import logger, traced
from functions.bootstrap import deps
from functions.scheduling.tick import training_finished
from shared.errors import ContractError


@logger.inject_lambda_context(clear_state=True)
@traced
@event_source(data_class=EventBridgeEvent)
def handler(event: EventBridgeEvent, context: Any) -> dict[str, Any]:
    """One event; returns where the job stands, None for a job of somebody else."""
    job_id = (event.get("detail") or {}).get("TrainingJobName")
    if not isinstance(job_id, str):
        raise ContractError("training event: detail.TrainingJobName is missing")
    record = training_finished(deps("aws"), job_id, time.time())
    return {"job_id": job_id, "status": record.status.value if record else None}
