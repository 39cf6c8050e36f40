"""The clouds of the deployment that OPPORTUNE_ variables describe, for the commands that operate it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from functions.bootstrap import cloud_services, configured_clouds
from shared.contracts import Cloud
from shared.errors import ConfigurationError, InvalidInputError, OpportuneError
from shared.ports import CloudServices
from shared.settings import Settings


def deployment(service: str | None = None) -> tuple[Settings, Mapping[Cloud, CloudServices]]:
    """The settings and every configured cloud.

    Raises:
        ConfigurationError: no cloud is configured.
    """
    env = dict(os.environ)
    if service is not None:
        env["OPPORTUNE_SERVICE"] = service
    settings = Settings.from_env(env)
    # On a person's machine neither cloud is "here": both have to be configured.
    azure = bool(settings.azure_storage_connection or settings.azure_storage_account)
    aws = "AWS_REGION" in os.environ or "AWS_DEFAULT_REGION" in os.environ
    clouds = [c for c in configured_clouds(settings) if (azure if c == "azure" else aws)]
    if not clouds:
        raise ConfigurationError(
            "AWS_REGION",
            None,
            "a region, or OPPORTUNE_AZURE_STORAGE_ACCOUNT a storage account; docs/operations.md lists what is read",
        )
    return settings, {cloud: cloud_services(cloud, settings) for cloud in clouds}


def each(clouds: Mapping[Cloud, CloudServices], call: Callable[[CloudServices], Any]) -> Iterator[tuple[Cloud, Any]]:
    """`call` on every cloud; one that fails is told on standard error. Raises the last error when all fail."""
    last: OpportuneError | None = None
    answered = False
    for cloud, services in clouds.items():
        try:
            answer = call(services)
        except InvalidInputError:
            raise
        except OpportuneError as exc:
            last = exc
            click.echo(f"{cloud}: {exc}", err=True)
            continue
        answered = True
        yield cloud, answer
    if not answered and last is not None:
        raise last


service_option = click.option("--service", metavar="NAME", help="Which service [OPPORTUNE_SERVICE].")
