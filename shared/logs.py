"""Logs are events: one JSON object per line. One trace id leads from a decision to the route it changed.

Loggers are children of `opportune`, in the containers of `training_containers`, and speak at INFO; libraries speak at
WARNING. What an event is about goes into `extra`: `action`, `trace_id`, `decision_id`,
`job_id` and whatever else helps. Settings are logged through `Settings.redacted`, never as they are; user and password
are taken out of every address in a line all the same.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Final

from shared.addresses import without_users
from shared.contracts import Decision, TrainingJob

_OURS: Final = ("opportune", "training_containers")
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """The message, everything passed as `extra`, and fixed fields of this process."""

    def __init__(self, **fixed: Any) -> None:
        super().__init__()
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON, times in UTC."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        event: dict[str, Any] = {
            "timestamp": stamp,
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            **self._fixed,
            **{key: value for key, value in record.__dict__.items() if key not in _STANDARD},
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return without_users(json.dumps(event, default=str, ensure_ascii=False))


def log_json(**fixed: Any) -> None:
    """Make every log of this process a JSON line, through the host's own handlers where it installed some."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler(sys.stdout))
    for handler in root.handlers:
        handler.setFormatter(JsonFormatter(**fixed))
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    # The SDKs log every request at INFO, with headers.
    logging.getLogger("azure").setLevel(logging.WARNING)


def about(subject: TrainingJob | Decision) -> dict[str, str]:
    """The ids that tie a log line to its decision."""
    ids = {"trace_id": subject.trace_id, "decision_id": subject.decision_id}
    return ids | ({"job_id": subject.job_id} if subject.job_id else {})
