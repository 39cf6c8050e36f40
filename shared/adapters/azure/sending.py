"""How every request to Azure is sent: short waits, one repetition, enough connections.

Importing this imports azure-core and requests: the adapters do so when they make their first client.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import requests
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter

#: short waits: a function that hangs on one cloud could not use the other
CONNECT_S: Final = 2.0
READ_S: Final = 20.0
#: the longest pause before the repetition, whatever a retry policy or the service's Retry-After asks for
PAUSE_S: Final = 0.5
#: keep-alive connections per client; requests beyond it open their own
_POOL: Final = 32

# They tell each request and each token at INFO, which the functions' loggers show.
for _name in ("azure.core", "azure.identity", "msal"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Transport(RequestsTransport):
    """One client's connections, with this project's time limits."""

    def __init__(self) -> None:
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=_POOL))
        super().__init__(session=session, connection_timeout=CONNECT_S, read_timeout=READ_S)

    def sleep(self, duration: float) -> None:
        """Pause before a repetition."""
        super().sleep(min(duration, PAUSE_S))


def options() -> dict[str, Any]:
    """What each SDK client is made with: a transport of its own, and at most two attempts."""
    return {"transport": Transport(), "retry_total": 1}
