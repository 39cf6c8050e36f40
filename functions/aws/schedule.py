"""Lambda: EventBridge's rate(1 minute) -> one tick.

The slot comes from the clock, not from the event's time: EventBridge may deliver late, and an old slot's decision
would be made on today's metrics.
"""

from __future__ import annotations

import time
from typing import Any

from functions.aws.powertools import logger, traced
from functions.bootstrap import deps, settle
from functions.scheduling.tick import tick


@logger.inject_lambda_context(clear_state=True)
@traced
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """One slot; returns what was decided."""
    decision = tick(deps("aws"), time.time())
    settle()
    if decision is None:
        return {"action": "standby"}
    return {"action": decision.action.name.lower(), "decision_id": decision.decision_id, "job_id": decision.job_id}
