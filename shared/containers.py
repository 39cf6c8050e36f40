"""What a serving container is told by its endpoint's configuration, on either cloud: nothing else reaches it."""

from __future__ import annotations

from typing import Final

from shared.contracts import Cloud
from shared.errors import ConfigurationError
from shared.settings import Settings

#: without these a container follows no release and keeps no feedback
NEEDED: Final = ("OPPORTUNE_SERVICE", "OPPORTUNE_CLOUD", "OPPORTUNE_SERVE_STORE")


def serving_environment(settings: Settings, cloud: Cloud) -> dict[str, str]:
    """Variables of the endpoint's containers; docs/operations.md shows the same lines for an endpoint made by hand."""
    aws = cloud == "aws"
    store = f"s3://{settings.bucket}" if aws else f"azure-blob:{settings.container}"
    url = settings.metrics_write_url_aws if aws else settings.metrics_write_url_azure
    given = {
        "OPPORTUNE_SERVICE": settings.service,
        "OPPORTUNE_CLOUD": cloud,
        "OPPORTUNE_SERVE_STORE": store,
        "OPPORTUNE_METRICS_WRITE_URL": url,
        "OPPORTUNE_METRICS_WRITE_AUTH": (settings.metrics_write_auth_aws if aws else settings.metrics_write_auth_azure)
        if url
        else "",
        "OPPORTUNE_METRICS_WRITE_TOKEN": settings.metrics_write_token if url else "",
        # SageMaker says it too, but not to every process of a container
        "AWS_REGION": settings.aws_region if aws else "",
        "AZURE_CLIENT_ID": "" if aws else settings.azureml_serve_client_id,
        "OPPORTUNE_AZURE_STORAGE_ACCOUNT": "" if aws else settings.azure_storage_account,
        "OPPORTUNE_AZURE_STORAGE_CONNECTION": "" if aws else settings.azure_storage_connection,
    }
    return {name: value for name, value in given.items() if value} | _further(settings.serve_environment)


def _further(text: str) -> dict[str, str]:
    """NAME=VALUE, separated by spaces. Raises ConfigurationError."""
    parts = [part.partition("=") for part in text.split()]
    if not all(name.isidentifier() and equals for name, equals, _ in parts):
        raise ConfigurationError("OPPORTUNE_SERVE_ENVIRONMENT", text, "NAME=VALUE, separated by spaces")
    return {name: value for name, _, value in parts}


def lacking(environment: dict[str, str], settings: Settings, cloud: Cloud) -> str:
    """What the containers of an endpoint that somebody made were not told, or told otherwise; "" when nothing."""
    wanted = serving_environment(settings, cloud)
    wrong = [name for name in NEEDED if environment.get(name) != wanted[name]]
    if not wrong:
        return ""
    return "its containers need " + ", ".join(f"{name}={wanted[name]}" for name in wrong)
