"""Requests to an Azure storage account: signed, retried, errors translated. urllib3 is all it needs.

The packages azure-storage-queue, azure-storage-blob and azure-data-tables together bring 26 MB and half a second of
imports into a function that makes a dozen kinds of request. Requests, headers and signatures are those of the Storage
REST interface, version below.
"""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import urllib3

from shared.adapters.entra import Entra
from shared.adapters.http import pool
from shared.errors import ConfigurationError, ConflictError, NotFoundError, UnavailableError
from shared.settings import Settings

VERSION: Final = "2021-12-02"
Service = Literal["blob", "queue", "table"]
#: what an identity's token must be for
RESOURCE: Final = "https://storage.azure.com"
#: short waits: a function that hangs on one cloud could not use the other
TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=20.0)
ATTEMPTS: Final = 2
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})


class Answer(NamedTuple):
    """Headers (lower-case names) and body of a successful answer."""

    headers: Mapping[str, str]
    body: bytes

    def json(self, what: str) -> dict[str, Any]:
        """The body as a JSON object. Raises UnavailableError when it is none."""
        try:
            return dict(json.loads(self.body))
        except (ValueError, TypeError) as exc:
            raise UnavailableError(what, "the answer is not a JSON object") from exc


class StorageAccount:
    """One account, by connection string (key or shared access signature) or by identity."""

    def __init__(self, settings: Settings, entra: Entra) -> None:
        self._entra = entra
        self._pool = pool()
        self._parts: dict[str, str] = {}
        connection = settings.azure_storage_connection
        if connection:
            self._parts = _parsed(connection)
        elif settings.azure_storage_account:
            self._parts = {"AccountName": settings.azure_storage_account}
        else:
            raise ConfigurationError(
                "OPPORTUNE_AZURE_STORAGE_ACCOUNT", None, "a storage account's name, or set …_AZURE_STORAGE_CONNECTION"
            )

    def url(self, service: Service) -> str:
        """Where the service answers."""
        parts = self._parts
        named = parts.get(f"{service.capitalize()}Endpoint")
        if named:
            return named.rstrip("/")
        suffix = parts.get("EndpointSuffix", "core.windows.net")
        return f"{parts.get('DefaultEndpointsProtocol', 'https')}://{parts['AccountName']}.{service}.{suffix}"

    def request(
        self,
        service: Service,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """One request on `path` (quoted, without a leading '/'), tried again while the service is busy.

        Raises:
            ConflictError: 409 or 412, a condition did not hold.
            NotFoundError: 404.
            UnavailableError: no answer, or any other status of 300 and up; carries the service's message.
        """
        url = f"{self.url(service)}/{path}"
        answer: Any = None
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(0.5)
            signed, fields = self._authorised(service, method, url, dict(query or {}), dict(headers or {}), body)
            target = f"{url}?{urlencode(fields, quote_via=quote)}" if fields else url
            try:
                answer = self._pool.request(method, target, headers=signed, body=body or None, timeout=TIMEOUT)
            except urllib3.exceptions.HTTPError as exc:
                reason, answer = f"{type(exc).__name__}: {exc}", None
                continue
            if answer.status not in _BUSY:
                break
        if answer is None:
            raise UnavailableError(what, reason)
        if answer.status in (409, 412):
            raise ConflictError(f"{what}: somebody else was first")
        if answer.status == 404:
            raise NotFoundError(f"{what} does not exist")
        if answer.status >= 300:
            code = answer.headers.get("x-ms-error-code") or answer.data[:200].decode(errors="replace")
            raise UnavailableError(what, f"HTTP {answer.status}: {code}")
        return Answer({name.lower(): value for name, value in answer.headers.items()}, answer.data)

    def _authorised(
        self,
        service: Service,
        method: str,
        url: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: bytes,
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and query with the date, the version and the proof of who asks."""
        headers |= {"x-ms-date": email.utils.format_datetime(dt.datetime.now(dt.UTC), usegmt=True)}
        headers |= {"x-ms-version": VERSION}
        if body:
            headers.setdefault("Content-Type", "application/octet-stream")
        if "AccountKey" in self._parts:
            text = _to_sign(service, self._parts["AccountName"], method, url, query, headers, len(body))
            key = base64.b64decode(self._parts["AccountKey"])
            proof = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
            headers["Authorization"] = f"SharedKey {self._parts['AccountName']}:{proof}"
        elif "SharedAccessSignature" in self._parts:
            query |= dict(parse_qsl(self._parts["SharedAccessSignature"].lstrip("?")))
        else:
            headers["Authorization"] = f"Bearer {self._entra.token(RESOURCE)}"
        return headers, query


def _parsed(connection: str) -> dict[str, str]:
    parts = dict(part.strip().partition("=")[::2] for part in connection.split(";") if part.strip())
    if "AccountName" not in parts and not ("SharedAccessSignature" in parts and "QueueEndpoint" in parts):
        raise ConfigurationError(
            "OPPORTUNE_AZURE_STORAGE_CONNECTION", "(hidden)", "a connection string with AccountName and AccountKey"
        )
    return parts


def _to_sign(
    service: Service,
    account: str,
    method: str,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    length: int,
) -> str:
    """The text whose HMAC proves that the key is known: Shared Key authorisation of the Storage services."""
    resource = f"/{account}{urlsplit(url).path}"
    if service == "table":
        # Tables sign the date and only the query's `comp`.
        comp = f"?comp={query['comp']}" if "comp" in query else ""
        return f"{method}\n\n{headers.get('Content-Type', '')}\n{headers['x-ms-date']}\n{resource}{comp}"
    own = {name.lower(): value for name, value in headers.items()}
    fields = ["content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"]
    fields += ["if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"]
    own["content-length"] = str(length) if length else ""
    lines = [method, *(own.get(name, "") for name in fields)]
    lines += [f"{name}:{own[name]}" for name in sorted(own) if name.startswith("x-ms-")]
    lines += [resource, *(f"{name.lower()}:{query[name]}" for name in sorted(query, key=str.lower))]
    return "\n".join(lines)
