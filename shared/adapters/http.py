"""HTTP behind the ports: the InferenceClient, and JSON over HTTP for the adapters without an SDK."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import urllib3

from shared.errors import InvalidInputError, UnavailableError

#: keep-alive connections per endpoint; requests beyond it open their own
_POOL = 32


def pool() -> urllib3.PoolManager:
    """Connections that never retry by themselves: the caller owns the deadline and knows what is idempotent."""
    return urllib3.PoolManager(num_pools=8, maxsize=_POOL, retries=False)


class HttpInference:
    """InferenceClient over plain HTTP: one JSON body in, one JSON object out."""

    def __init__(self) -> None:
        self._pool = pool()

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """POST `body`.

        Raises:
            UnavailableError: timeout, refused connection, 429, 5xx, or an answer that is not a JSON object.
            InvalidInputError: another 4xx; the message is the endpoint's own.
        """
        host = urlsplit(url).netloc
        try:
            answer = self._pool.request(
                "POST",
                url,
                body=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **headers},
                timeout=urllib3.Timeout(total=max(timeout_s, 0.001)),
            )
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError(host, str(exc)) from exc
        if answer.status == 429 or answer.status >= 500:
            raise UnavailableError(host, f"HTTP {answer.status}")
        try:
            payload = json.loads(answer.data)
        except ValueError as exc:
            raise UnavailableError(host, f"HTTP {answer.status} with a body that is not JSON") from exc
        if not isinstance(payload, dict):
            raise UnavailableError(host, f"HTTP {answer.status} with a JSON body that is no object")
        if answer.status >= 400:
            raise InvalidInputError(str(payload.get("error", f"the endpoint answered HTTP {answer.status}")))
        return payload
