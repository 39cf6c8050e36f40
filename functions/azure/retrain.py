"""Azure Functions: the Storage Queue -> training starts. What raises is delivered again, then poisoned by the host."""

from __future__ import annotations

import time

import azure.functions as func

from functions.bootstrap import deps
from functions.retraining.start import start_training

blueprint = func.Blueprint()


@blueprint.function_name("retrain")
@blueprint.queue_trigger(arg_name="message", queue_name="%OPPORTUNE_QUEUE%", connection="OPPORTUNE_STORAGE")
def retrain(message: func.QueueMessage) -> None:
    """One message. Bytes that are no UTF-8 are kept readable for the person who finds them in the poison queue."""
    start_training(deps("azure"), message.get_body().decode("utf-8", errors="replace"), time.time())
