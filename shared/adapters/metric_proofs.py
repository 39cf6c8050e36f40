"""How a query for metrics proves who asks: nothing, a token, a user, the AWS identity or the Azure one."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests

from shared.adapters.aws.session import AwsSession
from shared.errors import ConfigurationError
from shared.settings import MetricStore

if TYPE_CHECKING:
    from shared.adapters.azure.credential import Credential

#: what an Entra token for an Azure Monitor workspace's queries is for
ENTRA_SCOPE: Final = "https://prometheus.monitor.azure.com/.default"
#: where AWS answers queries: service that is signed for -> its addresses; the region need not be the function's
_OF_AWS: Final = {
    "aps": re.compile(r"^aps-workspaces[\w-]*\.([a-z0-9-]+)\."),
    "monitoring": re.compile(r"^monitoring[\w-]*\.([a-z0-9-]+)\."),
}


@dataclass(frozen=True, slots=True)
class Identities:
    """What a process can prove itself with; None = made at the first query that needs it."""

    aws: AwsSession | None = None
    #: an Entra token for a scope
    entra_token: Callable[[str], str] | None = None


def proof_of(
    place: MetricStore, user: tuple[str, str] | None, identities: Identities
) -> tuple[requests.auth.AuthBase | None, str]:
    """What proves each request to the store, and what to do when it is not accepted. `user` is the address's.

    Raises:
        ConfigurationError: basic without a user and password.
    """
    url, auth, token = place.variable("URL"), place.variable("AUTH"), place.variable("TOKEN")
    if place.auth == "sigv4":
        right = "aps:QueryMetrics, for CloudWatch cloudwatch:GetMetricData and cloudwatch:ListMetrics"
        signature = Signature(identities.aws or AwsSession(), place.sigv4_service)
        return signature, f"check {auth} and this identity's right ({right})"
    if place.auth == "entra":
        advice = f"check {auth} and this identity's role Monitoring Data Reader on the Azure Monitor workspace"
        return EntraToken(identities.entra_token or _entra_token), advice
    if user is not None:
        return _basic(*user), f"check the user and password in {url}"
    if place.auth == "basic":
        name, found, password = place.token.partition(":")
        if not found:
            told = "(hidden)" if place.token else None
            raise ConfigurationError(token, told, f"user:password, as {auth} is basic; or put them into {url}")
        return _basic(name, password), f"check {token}"
    if place.auth == "bearer" and place.token:
        return Bearer(place.token), f"check {token}"
    return None, f"set {token}, or {auth} to sigv4 or entra"


def _basic(user: str, password: str) -> requests.auth.AuthBase:
    return requests.auth.HTTPBasicAuth(user.encode(), password.encode())


class Bearer(requests.auth.AuthBase):
    """The same token with each request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class EntraToken(requests.auth.AuthBase):
    """An Entra token of this process's Azure identity with each request; whoever makes them keeps them while valid."""

    def __init__(self, token: Callable[[str], str]) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token(ENTRA_SCOPE)}"
        return request


class Signature(requests.auth.AuthBase):
    """Signs each request with this process's AWS identity, for the service and region of the address."""

    def __init__(self, session: AwsSession, service: str = "") -> None:
        self._session, self._service = session, service

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.method and request.url and isinstance(request.body, str), "requests prepared the form"
        service, region = signed_for(request.url)
        proven = self._session.sign(
            request.method, request.url, request.body.encode(), {}, service=self._service or service, region=region
        )
        request.headers.update(proven)
        return request


def signed_for(url: str) -> tuple[str, str]:
    """The service and region that a signature for this address names; no region: the function's own."""
    host = urlsplit(url).hostname or ""
    for service, pattern in _OF_AWS.items():
        if found := pattern.match(host):
            return service, found.group(1)
    return "aps", ""


def _entra_token(scope: str) -> str:
    return _credential().get_token(scope).token


@functools.cache
def _credential() -> Credential:
    from shared.adapters.azure.credential import azure_credential

    return azure_credential()
