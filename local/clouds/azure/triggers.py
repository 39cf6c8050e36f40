"""Azure Functions triggers: the timer, and the Storage Queue with its retries and poison queue."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import logging
import os
import threading
import time
from typing import Any, Final

from azure.core.exceptions import AzureError

from local.clouds.azure.app import Function, HostConfig, resolve
from local.clouds.azure.storage import make, queue_client
from local.runtimes import FunctionError
from shared.contracts import slot_of

log = logging.getLogger(__name__)

#: how long a message stays hidden while its function runs; the host would renew it
LEASE_S: Final = 120
#: an idle host polls less and less often, up to a minute; here not so patient
MIN_POLL_S, MAX_POLL_S = 0.05, 0.5


def run_timer(function: Function, slot_seconds: float, stop: threading.Event) -> None:
    """Call the function at the start of every slot, which stands in for its NCRONTAB schedule of one a slot."""
    due = slot_of(time.time(), slot_seconds) + slot_seconds
    while not stop.wait(max(0.0, due - time.time())):
        info = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": {
                "Last": _iso(due - slot_seconds),
                "Next": _iso(due + slot_seconds),
                "LastUpdated": _iso(due - slot_seconds),
            },
            "IsPastDue": time.time() - due > slot_seconds,
        }
        try:
            function.invoke("json", json.dumps(info))
        except FunctionError as exc:
            log.error("%s failed for slot %s: %s", function.name, due, exc)
        due = max(due, slot_of(time.time(), slot_seconds)) + slot_seconds


def run_queue(function: Function, connection: str, config: HostConfig, stop: threading.Event) -> None:
    """Feed the queue's messages one by one. A failed one comes again until the limit, then goes to <queue>-poison."""
    name = resolve(function.binding["queueName"], os.environ)
    queue, poison = queue_client(connection, name), queue_client(connection, f"{name}-poison")
    pause = MIN_POLL_S
    while not stop.wait(pause):
        pause = min(2 * pause, MAX_POLL_S)
        try:
            for message in queue.receive_messages(max_messages=config.batch_size, visibility_timeout=LEASE_S):
                pause = MIN_POLL_S
                _handle(function, message, queue, poison, config)
        except AzureError as exc:
            log.warning("queue %s: %s", name, str(exc).partition("\n")[0])
            pause = 1.0


def _handle(function: Function, message: Any, queue: Any, poison: Any, config: HostConfig) -> None:
    try:
        body = base64.b64decode(message.content, validate=True) if config.base64 else message.content.encode()
    except (binascii.Error, ValueError):
        # No number of deliveries would make it readable.
        log.error("%s: message %s is not base64; it goes to the poison queue", function.name, message.id)
        _poison(message, queue, poison)
        return
    metadata = {
        "Id": ["string", message.id],
        "DequeueCount": ["json", str(message.dequeue_count)],
        "ExpirationTime": ["json", json.dumps(message.expires_on.isoformat())],
        "InsertionTime": ["json", json.dumps(message.inserted_on.isoformat())],
        "NextVisibleTime": ["json", json.dumps(message.next_visible_on.isoformat())],
        "PopReceipt": ["string", message.pop_receipt],
    }
    try:
        function.invoke(*_payload(body), metadata)
    except FunctionError as exc:
        log.error("%s failed for message %s, delivery %d: %s", function.name, message.id, message.dequeue_count, exc)
        if message.dequeue_count >= config.max_dequeue_count:
            _poison(message, queue, poison)
        else:
            queue.update_message(message, visibility_timeout=int(config.visibility_timeout_s))
    else:
        queue.delete_message(message)


def _payload(body: bytes) -> tuple[str, str]:
    """The message as the host hands it over: text, or bytes that are none."""
    try:
        return "string", body.decode()
    except UnicodeDecodeError:
        return "bytes", base64.b64encode(body).decode()


def _poison(message: Any, queue: Any, poison: Any) -> None:
    make(poison.create_queue)
    poison.send_message(message.content)
    queue.delete_message(message)


def _iso(moment_s: float) -> str:
    return dt.datetime.fromtimestamp(moment_s, dt.UTC).isoformat()
