"""The clouds of the deployment that OPPORTUNE_ variables describe, for the commands that operate it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import click

from cli.main import PARTLY, REFUSED
from cli.output import complain, emit, say
from functions.bootstrap import aws_session, azure_credential, cloud_services, configured_clouds
from shared.contracts import Cloud
from shared.errors import ConfigurationError, OpportuneError
from shared.ports import CloudServices
from shared.settings import Settings
from shared.values import Standing

T = TypeVar("T")


@dataclass(frozen=True)
class Asked(Generic[T]):
    """What each cloud answered, and of those that did not, why."""

    answers: Mapping[Cloud, T]
    failed: Mapping[Cloud, str]

    def show(self, service: str, lines: Callable[[T], Iterable[str]], as_json: bool) -> None:
        """Print each cloud's answer, as lines below its name or all in one document."""
        if as_json:
            emit({"service": service, "clouds": self.answers, "failed": self.failed})
            return
        for cloud, found in self.answers.items():
            say(f"{service} on {cloud}", as_json)
            for line in lines(found):
                say(f"  {line}", as_json)

    def finish_if_nothing(self) -> None:
        """End where no cloud answered; what each of them said was told already."""
        if not self.answers:
            sys.exit(REFUSED)

    def finish(self) -> None:
        """End with the exit code that says how far it got; returns where everything was done."""
        if self.failed:
            sys.exit(PARTLY if self.answers else REFUSED)


def deployment(service: str | None = None) -> tuple[Settings, Mapping[Cloud, CloudServices]]:
    """The settings and every configured cloud.

    Raises:
        ConfigurationError: no cloud is configured.
    """
    env = dict(os.environ)
    if service is not None:
        env["OPPORTUNE_SERVICE"] = service
    settings = Settings.from_env(env)
    if "OPPORTUNE_AWS_REGION" in env:  # of a profile; AWS's own library reads the other name
        os.environ.setdefault("AWS_REGION", settings.aws_region)
    # On a person's machine neither cloud is "here": both have to be configured.
    azure = bool(settings.azure_storage_connection or settings.azure_storage_account)
    aws = "AWS_REGION" in os.environ or "AWS_DEFAULT_REGION" in os.environ
    clouds = [c for c in configured_clouds(settings) if (azure if c == "azure" else aws)]
    if not clouds:
        raise ConfigurationError(
            "AWS_REGION",
            None,
            "a region, or OPPORTUNE_AZURE_STORAGE_ACCOUNT a storage account; or name a profile of opportune.toml with "
            "--profile. docs/configuration.md lists what is read",
        )
    return settings, {cloud: cloud_services(cloud, settings) for cloud in clouds}


def ask(
    clouds: Mapping[Cloud, CloudServices], call: Callable[[CloudServices], T], failing: str = "{cloud}"
) -> Asked[T]:
    """`call` on every cloud. One that fails is told on standard error, behind `failing`; the others go on.

    Raises:
        ConfigurationError: a setting is wrong, on whichever cloud it shows.
    """
    answers: dict[Cloud, T] = {}
    failed: dict[Cloud, str] = {}
    for cloud, services in clouds.items():
        try:
            answers[cloud] = call(services)
        except ConfigurationError:
            raise
        except OpportuneError as exc:
            failed[cloud] = str(exc)
            complain(f"{failing.format(cloud=cloud)}: {exc}")
    return Asked(answers, failed)


class EndpointSetup(Protocol):
    """An endpoint's own making, which a release does not touch."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def standing(self) -> Standing:
        """The endpoint now."""
        ...

    def create(self) -> None:
        """Make what is missing, or the next step of it; safe to repeat."""
        ...


def endpoint_setup(cloud: Cloud, settings: Settings) -> EndpointSetup:
    """The endpoint of a cloud."""
    if cloud == "aws":
        from shared.adapters.aws.endpoint_setup import SageMakerSetup

        return SageMakerSetup(aws_session(), settings)
    from shared.adapters.azure.endpoint_setup import AzureMLSetup

    return AzureMLSetup(settings, azure_credential())


service_option = click.option("--service", metavar="NAME", help="Which service [OPPORTUNE_SERVICE].")
