"""The storage account that the settings name, for the SDK clients of its table, container and queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.errors import ConfigurationError
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


def once_more(linear_retry: Any) -> Any:
    """The retry policy of blobs and queues, whose clients wrap the transport and so its limit on pauses."""
    from shared.adapters.azure.sending import PAUSE_S

    return linear_retry(backoff=PAUSE_S, retry_total=1, random_jitter_range=0)


def storage_client(
    made: Any, service: str, name: str, settings: Settings, credential: TokenCredential, **changes: Any
) -> Any:
    """The client of class `made` for table, container or queue `name`: by connection string, else by identity.

    Raises:
        ConfigurationError: the settings name no account, or not one that the SDK understands.
    """
    from shared.adapters.azure.sending import options

    known = {**options(), **changes}
    if settings.azure_storage_connection:
        try:
            return made.from_connection_string(settings.azure_storage_connection, name, **known)
        except ValueError:
            raise ConfigurationError(
                "OPPORTUNE_AZURE_STORAGE_CONNECTION", "(hidden)", "a connection string with AccountName and AccountKey"
            ) from None
    if not settings.azure_storage_account:
        raise ConfigurationError(
            "OPPORTUNE_AZURE_STORAGE_ACCOUNT", None, "a storage account's name, or set …_AZURE_STORAGE_CONNECTION"
        )
    address = f"https://{settings.azure_storage_account}.{service}.core.windows.net"
    return made(address, name, credential=credential, **known)
