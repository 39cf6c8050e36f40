"""Lambda: the SQS retrain queue -> training starts. Only the messages that failed come back."""

from __future__ import annotations

import time
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from functions.aws.powertools import logger, traced
from functions.bootstrap import deps
from functions.retraining.start import start_training

# A batch that fails as a whole is reported message by message too, so that each keeps its own receive count.
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def start(record: SQSRecord) -> str:
    """One message; what it raises makes the queue deliver it again."""
    return start_training(deps("aws"), record.body, time.time()).value


@logger.inject_lambda_context(clear_state=True)
@traced
def handler(event: dict[str, Any], context: Any) -> Any:
    """A batch; the answer names the messages to deliver again."""
    return process_partial_response(event=event, record_handler=start, processor=processor, context=context)
