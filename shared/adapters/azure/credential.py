"""Who this process is to Azure, without a stored secret: one azure-identity credential for all adapters.

| where                     | how                                                                           |
|---------------------------|-------------------------------------------------------------------------------|
| Azure Functions           | managed identity, at IDENTITY_ENDPOINT                                        |
| Azure ML containers       | managed identity, at MSI_ENDPOINT                                             |
| AWS, federated            | AZURE_TENANT_ID and AZURE_CLIENT_ID: an AWS token exchanged for an Entra one  |
| a developer's machine     | whoever is signed in to the `az` command                                      |
| Azure virtual machines    | managed identity, at the instance metadata service                            |
"""

from __future__ import annotations

import functools
import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.azure.errors import reason
from shared.errors import UnavailableError
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

#: the audience that Entra expects in a token of another provider
EXCHANGE_AUDIENCE: Final = "api://AzureADTokenExchange"
#: a token that ends sooner is renewed
MARGIN_S: Final = 300.0
_HINT: Final = (
    "in Azure give the function app a managed identity; elsewhere run `az login` "
    "or set AZURE_TENANT_ID and AZURE_CLIENT_ID"
)


class Credential:
    """A TokenCredential that is made at the first token, and keeps tokens until shortly before they end.

    One for all clients of the process: each of them would ask for a token of its own, which takes `az` a second.
    """

    def __init__(self, make: Callable[[], TokenCredential]) -> None:
        self._made = functools.cache(make)
        self._tokens: dict[tuple[str, ...], AccessToken] = {}
        self._lock = threading.Lock()

    def get_token(self, *scopes: str, **wanted: Any) -> AccessToken:
        """A token for the scopes (https://storage.azure.com/.default).

        Raises:
            UnavailableError: nobody here may have one, with what to do.
        """
        if any(wanted.values()):  # a service challenged the token it got: another one is needed
            return self._asked(*scopes, **wanted)
        held = self._tokens.get(scopes)
        if held is None or held.expires_on - time.time() < MARGIN_S:
            with self._lock:
                held = self._tokens.get(scopes)
                if held is None or held.expires_on - time.time() < MARGIN_S:
                    held = self._tokens[scopes] = self._asked(*scopes)
        return held

    def _asked(self, *scopes: str, **wanted: Any) -> AccessToken:
        from azure.core.exceptions import AzureError, HttpResponseError
        from azure.identity import CredentialUnavailableError

        try:
            return self._made().get_token(*scopes, **wanted)
        except (AzureError, ValueError) as exc:  # ValueError: an answer that is no token
            told = exc.message if isinstance(exc, HttpResponseError) else reason(exc)
            why = f"no token: {' '.join(str(told).split())[:300]}"
            refused = isinstance(exc, HttpResponseError) and not isinstance(exc, CredentialUnavailableError)
            raise UnavailableError("Microsoft Entra", why if refused else f"{why}; {_HINT}") from exc


class StaticToken:
    """A TokenCredential that was told its token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        """The token, as if it had just been asked for."""
        from azure.core.credentials import AccessToken

        return AccessToken(self._token, int(time.time()) + 3600)


def azure_credential(aws_token: Callable[[str], str] | None = None) -> Credential:
    """The process's identity by its environment; on AWS `aws_token` proves its identity there to an audience."""
    return Credential(functools.partial(_by_environment, aws_token))


def workspace_credential(settings: Settings, credential: TokenCredential) -> TokenCredential:
    """Who asks Azure ML: the settings' token if there is one, else the process."""
    return StaticToken(settings.azureml_token) if settings.azureml_token else credential


def _by_environment(aws_token: Callable[[str], str] | None) -> TokenCredential:
    from azure.identity import AzureCliCredential, ManagedIdentityCredential

    from shared.adapters.azure.sending import options

    env = os.environ
    tenant, client = env.get("AZURE_TENANT_ID"), env.get("AZURE_CLIENT_ID") or None
    if "IDENTITY_ENDPOINT" not in env:
        if "MSI_ENDPOINT" in env:
            client = env.get("DEFAULT_IDENTITY_CLIENT_ID", client)
        elif tenant and client and aws_token is not None:
            return federated(tenant, client, aws_token, **options())
        elif shutil.which("az"):
            return AzureCliCredential(process_timeout=30)
    return ManagedIdentityCredential(client_id=client, **options())


def federated(tenant: str, client: str, aws_token: Callable[[str], str], **sending: Any) -> TokenCredential:
    """The application `client` of `tenant`, which trusts this AWS identity."""
    from azure.identity import ClientAssertionCredential

    return ClientAssertionCredential(tenant, client, functools.partial(aws_token, EXCHANGE_AUDIENCE), **sending)
