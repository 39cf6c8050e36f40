"""Azure Functions: Azure ML's RunCompleted and RunStatusChanged events -> gate and roll-out.

The event only says which job to look at; its status is read from Azure ML.
"""

from __future__ import annotations

import time

import azure.functions as func

from functions.bootstrap import deps
from functions.scheduling.tick import training_finished
from shared.errors import ContractError

blueprint = func.Blueprint()


@blueprint.function_name("training-events")
@blueprint.event_grid_trigger(arg_name="event")
def training_events(event: func.EventGridEvent) -> None:
    """One event."""
    details = event.get_json()
    job_id = details.get("runId") if isinstance(details, dict) else None
    if not isinstance(job_id, str):
        raise ContractError("training event: data.runId is missing")
    training_finished(deps("azure"), job_id, time.time())
