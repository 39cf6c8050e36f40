"""The containers' logs: the project's JSON lines, from our own modules at INFO, from libraries at WARNING."""

from __future__ import annotations

import logging
from typing import Any

from shared import logs


def log_json(**fixed: Any) -> None:
    """Send this process's logs to standard output as JSON lines carrying the `fixed` fields."""
    logs.log_json(**fixed)
    logging.getLogger("training_containers").setLevel(logging.INFO)
