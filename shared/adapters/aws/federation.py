"""A link of the SDK's chain of credential providers: an identity of another provider takes an AWS role on.

Imported only where that is how credentials come: everything here needs the SDK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from botocore.credentials import (
    AssumeRoleWithWebIdentityCredentialFetcher,
    CredentialProvider,
    DeferredRefreshableCredentials,
)


class WebIdentityProvider(CredentialProvider):
    """Temporary credentials of `role` for whatever `token` returns, from AWS STS; renewed before they end.

    The SDK's own provider of this kind reads the token from a file, which nobody writes here.
    """

    METHOD: Final = "assume-role-with-web-identity"

    def __init__(self, create_client: Callable[..., Any], config: Any, role: str, token: Callable[[], str]) -> None:
        super().__init__()
        self._create_client = create_client
        self._config = config
        self._role = role
        self._token = token

    def load(self) -> Any:
        """Credentials that are asked for at their first use."""
        fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
            client_creator=self._client, web_identity_token_loader=self._token, role_arn=self._role
        )
        return DeferredRefreshableCredentials(method=self.METHOD, refresh_using=fetcher.fetch_credentials)

    def _client(self, service: str, config: Any) -> Any:
        """The fetcher's client, which signs nothing, with the waits and retries of all the others."""
        return self._create_client(service, config=self._config.merge(config))
