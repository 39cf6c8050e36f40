"""Logging of the embedded servers."""

from __future__ import annotations

import logging
from typing import Final

#: libraries that write a line per request
CHATTY: Final = ("azure", "botocore", "boto3", "urllib3", "waitress.queue", "werkzeug")


def log_to_stderr() -> None:
    """Plain lines; the functions' own JSON passes through as it is."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
