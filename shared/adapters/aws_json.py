"""AWS services of the JSON protocol, asked without botocore's clients.

A client of botocore takes tens of milliseconds to build and three to answer, whatever it asks. A tick asks half a dozen
things, so what it asks goes through here; everything rare stays with botocore.
"""

from __future__ import annotations

import functools
import os
import random
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import urllib3

from shared.adapters.aws import failure
from shared.adapters.http import pool
from shared.adapters.sigv4 import region_of, signed
from shared.errors import UnavailableError

#: short waits: a function that hangs on one cloud could not use the other
_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=20.0)
_ATTEMPTS: Final = 2
_LONGEST_PAUSE_S: Final = 0.5
#: refused for now; the same request may succeed a moment later
_TRANSIENT: Final = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TransactionInProgressException",
    }
)


class JsonService:
    """One service; `target` is the prefix of its operations, `version` that of the protocol."""

    def __init__(self, service: str, target: str, version: str) -> None:
        self._service = service
        self._target = target
        self._content_type = f"application/x-amz-json-{version}"

    def call(self, operation: str, request: dict[str, Any], what: str) -> dict[str, Any]:
        """The answer; values are as they are on the wire (bytes in base64, times in POSIX seconds).

        Raises:
            ConflictError, NotFoundError, UnavailableError: as shared.adapters.aws.translated; `what` is asked about.
        """
        body = msgspec.json.encode(request)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._send(operation, body)
            except urllib3.exceptions.HTTPError as exc:
                if attempt == _ATTEMPTS:
                    raise UnavailableError(what, str(exc)) from exc
            else:
                told = _object(answer.data)
                if answer.status == 200 and told is not None:
                    return told
                code, message = _refusal(answer, told or {})
                if attempt == _ATTEMPTS or (400 <= answer.status < 500 and code not in _TRANSIENT):
                    raise failure(what, code, message)
            time.sleep(random.random() * _LONGEST_PAUSE_S)
        raise AssertionError("the last attempt returned or raised")

    def _send(self, operation: str, body: bytes) -> urllib3.BaseHTTPResponse:
        region = region_of(service=self._service)
        url = _address(self._service, region)
        headers = {"Content-Type": self._content_type, "X-Amz-Target": f"{self._target}.{operation}"}
        proven = signed("POST", url, body, headers, service=self._service, region=region)
        target = urlsplit(url).path
        return _connections(url).urlopen("POST", target, body=body, headers=proven, retries=False, timeout=_TIMEOUT)


@functools.cache
def _connections(url: str) -> urllib3.HTTPConnectionPool:
    """The connections to one service; finding them again for each request would cost a seventh of it."""
    return pool().connection_from_url(url)


def _address(service: str, region: str) -> str:
    """Where the service answers; the variables are the SDK's own."""
    env = os.environ
    own = env.get(f"AWS_ENDPOINT_URL_{service.upper()}") or env.get("AWS_ENDPOINT_URL")
    if own:
        return f"{own.rstrip('/')}/"
    prefix = "api." if service == "sagemaker" else ""
    return f"https://{prefix}{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}/"


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        told = msgspec.json.decode(raw or b"{}")
    except msgspec.DecodeError:
        return None
    return told if isinstance(told, dict) else None


def _refusal(answer: urllib3.BaseHTTPResponse, told: dict[str, Any]) -> tuple[str, str]:
    """(code, message) of an error."""
    code = str(told.get("__type") or answer.headers.get("x-amzn-errortype") or f"HTTP {answer.status}")
    message = told.get("message") or told.get("Message") or f"HTTP {answer.status}"
    return code.rpartition("#")[2].partition(":")[0], str(message)
