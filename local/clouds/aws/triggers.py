"""Lambda triggers: EventBridge schedule and rule target, and the SQS event source mapping with partial batches."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import time
import uuid
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError  # noqa: TID251 - the poller is part of the cloud

from local.clouds.aws.sdk import ACCOUNT, client
from local.runtimes import FunctionError, LambdaFunction
from shared.contracts import slot_of

log = logging.getLogger(__name__)

BATCH: Final = 10
LONG_POLL_S: Final = 5


def run_schedule(function: LambdaFunction, slot_seconds: float, stop: threading.Event) -> None:
    """Invoke the function at the start of every slot. A slot that passed while it ran is skipped."""
    due = slot_of(time.time(), slot_seconds) + slot_seconds
    while not stop.wait(max(0.0, due - time.time())):
        try:
            function.invoke(scheduled_event(due))
        except FunctionError as exc:
            log.error("%s failed for slot %s: %s", function.name, due, exc)
        due = max(due, slot_of(time.time(), slot_seconds)) + slot_seconds


def scheduled_event(due_s: float) -> dict[str, Any]:
    """An EventBridge scheduled event; its time has fractions only when a shortened slot has."""
    moment = dt.datetime.fromtimestamp(due_s, dt.UTC)
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": moment.isoformat().replace("+00:00", "Z"),
        "region": "us-east-1",
        "resources": [f"arn:aws:events:us-east-1:{ACCOUNT}:rule/opportune-tick"],
        "detail": {},
    }


def run_queue(function: LambdaFunction, queue: str, stop: threading.Event) -> None:
    """An SQS event source mapping with ReportBatchItemFailures: what succeeded is deleted, the rest comes again."""
    sqs = client("sqs")
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}"
    for url, messages in _receive(queue, stop):
        event = {"Records": [_record(message, arn) for message in messages]}
        try:
            failed = failed_ids(function.invoke(event), {m["MessageId"] for m in messages})
        except FunctionError as exc:  # the messages become visible again
            log.error("%s failed for %d messages of %s: %s", function.name, len(messages), queue, exc)
            continue
        for message in messages:
            if message["MessageId"] in failed:
                log.warning("%s reported message %s as failed", function.name, message["MessageId"])
            else:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def run_events(function: LambdaFunction, queue: str, stop: threading.Event) -> None:
    """A rule's Lambda target: one event a call. moto's rules reach queues only, so a queue stands between."""
    sqs = client("sqs")
    for url, messages in _receive(queue, stop):
        for message in messages:
            try:
                function.invoke(json.loads(message["Body"]))
            except FunctionError as exc:  # as in Lambda, it is delivered again
                log.error("%s failed for event %s: %s", function.name, message["MessageId"], exc)
            else:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def failed_ids(answer: Any, sent: set[str]) -> set[str]:
    """The message ids that a function's partial batch response calls failed.

    As Lambda does: no or an empty answer is success, an answer that cannot be read fails the whole batch.
    """
    if not answer:
        return set()
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if failures is None:
        return set() if isinstance(answer, dict) else sent
    ids = {str(item.get("itemIdentifier")) if isinstance(item, dict) else "" for item in failures}
    return ids if ids <= sent else sent


def _receive(queue: str, stop: threading.Event) -> Any:
    """Yield (queue url, messages) until `stop`; outlives an unreachable queue."""
    sqs = client("sqs")
    while not stop.is_set():
        try:
            url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=LONG_POLL_S,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            if messages := answer.get("Messages"):
                yield url, messages
        except (BotoCoreError, ClientError) as exc:
            log.warning("queue %s: %s", queue, exc)
            stop.wait(1.0)


def _record(message: dict[str, Any], arn: str) -> dict[str, Any]:
    """An SQS message as Lambda sees it: field names start in lower case."""
    attributes = {
        name: {_lower(key): value for key, value in attribute.items()}
        for name, attribute in message.get("MessageAttributes", {}).items()
    }
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": attributes,
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "us-east-1",
    }


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
