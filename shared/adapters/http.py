"""HTTP behind the ports: an InferenceClient, and connections for the adapters without an SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import urllib3

from shared.addresses import host_of
from shared.errors import InvalidInputError, UnavailableError, VersionNotLoadedError

#: keep-alive connections per endpoint; requests beyond it open their own
_POOL = 32


def pool() -> urllib3.PoolManager:
    """Connections that never retry by themselves: the caller owns the deadline and knows what is idempotent."""
    return urllib3.PoolManager(num_pools=8, maxsize=_POOL, retries=False)


def post(
    connections: urllib3.PoolManager, url: str, body: bytes, timeout_s: float, headers: Mapping[str, str]
) -> urllib3.BaseHTTPResponse:
    """One POST within the deadline. Raises UnavailableError when no answer came."""
    timeout = urllib3.Timeout(total=max(timeout_s, 0.001))
    try:
        return connections.request("POST", url, body=body, headers=dict(headers), timeout=timeout)
    except urllib3.exceptions.HTTPError as exc:
        raise UnavailableError(host_of(url), str(exc)) from exc


def payload(host: str, status: int, raw: bytes) -> dict[str, Any]:
    """The JSON object that a serving container answered with.

    Raises:
        VersionNotLoadedError: 409; the instance has not loaded the version that was named.
        UnavailableError: 429, 5xx, or an answer that is not a JSON object.
        InvalidInputError: another 4xx; the message is the container's own.
    """
    if status == 409:
        raise VersionNotLoadedError(host, "HTTP 409: it has not loaded the version that was asked for")
    if status == 429 or status >= 500:
        raise UnavailableError(host, f"HTTP {status}")
    try:
        told = json.loads(raw)
    except ValueError as exc:
        raise UnavailableError(host, f"HTTP {status} with a body that is not JSON") from exc
    if not isinstance(told, dict):
        raise UnavailableError(host, f"HTTP {status} with a JSON body that is no object")
    if status >= 400:
        raise InvalidInputError(str(told.get("error", f"the endpoint answered HTTP {status}")))
    return told


class HttpInference:
    """InferenceClient over plain HTTP: one JSON body in, one JSON object out."""

    def __init__(self) -> None:
        self._pool = pool()

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """POST `body`; errors as in `post` and `payload`."""
        known = {"Content-Type": "application/json", **headers}
        answer = post(self._pool, url, json.dumps(body).encode(), timeout_s, known)
        return payload(host_of(url), answer.status, answer.data)
