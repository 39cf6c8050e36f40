"""What `opportune doctor` looks at in one cloud: what the ports reach, the release, and the account around it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Final

from cli.clouds import endpoint_setup
from cli.releasing import current, statuses
from functions.bootstrap import aws_session, azure_credential
from shared.contracts import Cloud
from shared.errors import NotFoundError, OpportuneError
from shared.ports import CloudServices
from shared.releases import INSTANCE_TTL_S, serving
from shared.settings import Settings
from shared.state import State

#: name -> what returns words when it is well
Checks = dict[str, Callable[[], str]]


class WarnedError(OpportuneError):
    """Not as it should be, and yet nothing that stops the loop."""


class NotCheckedError(OpportuneError):
    """Nobody here may look."""


#: how the clouds say that somebody may not do something
_DENIED: Final = (
    "AccessDenied",
    "UnauthorizedOperation",
    "AuthorizationFailed",
    "not authorized",
    "AuthorizationError",
)
_FEEDBACK: Final = "labels come in by POST /feedback; without them every decision is a hold"


def account(cloud: Cloud, settings: Settings) -> Checks:
    """What no port asks for, by the cloud's own names."""
    if cloud == "aws":
        from shared.adapters.aws.account_checks import AwsAccount

        aws = AwsAccount(aws_session(), settings)
        return {"image": aws.image, "roles": aws.roles, "quotas": aws.quotas, "alarms": aws.alarms}
    from shared.adapters.azure.account_checks import AzureAccount

    azure = AzureAccount(settings, azure_credential())
    return {"image": azure.image, "training compute": azure.compute, "alarms": azure.alarms}


def checks(services: CloudServices, settings: Settings) -> Checks:
    """Everything that one cloud's part of the loop needs."""
    cloud, objects, service = services.cloud, services.objects, settings.service

    def table() -> str:
        paused = State(services.documents).control(service).paused
        return "answers" + (", retraining is PAUSED: `opportune resume`" if paused else "")

    def dead() -> str:
        count = services.queue.dead_letter_count()
        if count:
            raise WarnedError(f"{count} messages, see `opportune redrive --dry-run`")
        return "0 messages"

    def store() -> str:
        for prefix in ("feedback/", "models/", "release/"):
            next(iter(objects.entries(prefix)), None)
        return "answers"

    def training() -> str:
        services.training.status("opportune-doctor")
        return "answers"

    def endpoint() -> str:
        setup = endpoint_setup(cloud, settings)
        standing = setup.standing()
        if not standing.state:
            raise NotFoundError(f"{setup.name} does not exist; make it: opportune release MODEL --first")
        if standing.failed or not standing.ready:
            raise NotFoundError(f"{setup.name} is {standing.state}: {standing.reason}")
        if standing.lacks:
            raise NotFoundError(f"{setup.name} does not follow releases: {standing.lacks}")
        return f"{setup.name} is {standing.state}"

    def release() -> str:
        found, _ = current(objects, service)
        if found is None:
            raise NotFoundError(f"nothing is released to {service} here: opportune release MODEL --first")
        return f"revision {found.revision}, stable {found.of('stable')}"

    def instances() -> str:
        now_s = time.time()
        told, unread = statuses(objects, service)
        alive = [status for status in told if now_s - status.told_s <= INSTANCE_TTL_S]
        if not alive:
            last = f"; the last one did {now_s - told[0].told_s:.0f} s ago" if told else ""
            raise NotFoundError(
                f"no instance has told what it serves for {INSTANCE_TTL_S:g} s{last}: does the endpoint run our image "
                "with our environment, and may its role write to release/?"
            )
        found = serving(current(objects, service)[0], told, now_s)
        if found.updating:
            raise WarnedError(
                f"{found.version or 'nothing'} serves, the release is being loaded: {found.reason}".rstrip(": ")
            )
        if found.reason:
            raise NotFoundError(f"{found.version or 'nothing'} serves: {found.reason}")
        if unread:
            raise WarnedError(f"{len(alive)} serve {found.version}; not readable: {unread[0]}")
        return f"{len(alive)} serve {found.version}"

    def labels() -> str:
        today = dt.datetime.now(dt.UTC)
        for day in (today, today - dt.timedelta(days=1)):
            if next(iter(objects.entries(f"feedback/{cloud}/{day:%Y%m%d}")), None) is not None:
                return "there are some of the last day"
        raise WarnedError(f"none of the last day came in here; {_FEEDBACK}")

    found: Checks = {
        "table": table,
        "queue": lambda: f"{services.queue.depth()} jobs wait",
        "dead letters": dead,
        "objects": store,
        "training service": training,
        "endpoint": endpoint,
        "release": release,
        "instances": instances,
        "labels": labels,
        "prices": lambda: prices(cloud, settings),
    }
    return found | {name: _if_allowed(check) for name, check in account(cloud, settings).items()}


def prices(cloud: Cloud, settings: Settings) -> str:
    """What an hour of training is reckoned with."""
    kind, region = settings.train_instance(cloud)
    most, expected = settings.list_price_usd_per_hour(cloud), settings.price_usd_per_hour(cloud)
    spot = "" if expected == most else f", about ${expected:.3f} on spot"
    return f"{kind} in {region}: ${most:.3f} an hour{spot}"


def _if_allowed(check: Callable[[], str]) -> Callable[[], str]:
    """A check that whoever runs this may not be allowed to make."""

    def look() -> str:
        try:
            return check()
        except OpportuneError as exc:
            if any(word in str(exc) for word in _DENIED):
                raise NotCheckedError(f"not checked, you may not look: {exc}") from exc
            raise

    return look
