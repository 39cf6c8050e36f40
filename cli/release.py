"""`opportune release` and `rollback`: which version serves, by a person's own decision."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from cli.clouds import ask, deployment, endpoint_setup, service_option
from cli.main import PARTLY, REFUSED
from cli.output import complain, emit, json_option, say
from cli.releasing import Wait, current, make_stable, outcome, say_if_paused, statuses, versions
from cli.transfer import Folder, Progress, Stored, manifest_of, send
from shared.contracts import CLOUDS, Cloud, Release
from shared.errors import InvalidInputError, OpportuneError
from shared.ports import CloudServices
from shared.releases import BY_A_PERSON, serving
from shared.settings import Settings

#: where artifacts made of models are kept, so that a repeated command finds them
CACHE: Final = Path(__file__).parents[1] / "build" / "first-version"
#: a transfer tells how far it is after so long
TELL_EVERY_S: Final = 5.0

_cloud_option = click.option(
    "--cloud", "which", type=click.Choice([*CLOUDS, "both"]), default="both", show_default=True, help="Where."
)
_no_wait_option = click.option("--no-wait", is_flag=True, help="Do not wait until it is in force.")
_timeout_option = click.option(
    "--timeout", "minutes", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
    help="Minutes to wait.",
)  # fmt: skip
_reason_option = click.option(
    "--reason", default="no reason given", show_default=True, help="Why; kept in the release."
)


@click.command()
@service_option
@click.argument("what", metavar="MODEL|VERSION")
@click.option("--first", is_flag=True, help="WHAT is a model: make its artifact, upload it, make missing endpoints.")
@_cloud_option
@_no_wait_option
@_timeout_option
@_reason_option
@json_option
def release(
    service: str | None, what: str, first: bool, which: str, no_wait: bool, minutes: float, reason: str, as_json: bool
) -> None:
    """Make a version the one that serves, on every cloud.

    With --first, MODEL is a name on the Hugging Face hub, a model's folder, or an artifact's folder: it is uploaded as
    a version, and endpoints that do not exist are made with image, role, instance type and environment of the
    settings. Without, VERSION is one that is uploaded already (see `opportune releases`).

    It may be repeated after any interruption, and goes on where it stopped. Exits with 1 when a cloud was not reached
    or the version is not in force there.

    \b
    Example: opportune release distilgpt2 --first
    Example: opportune release m3f2a91c04e --reason "the one of Tuesday"
    """
    settings, clouds = _wanted(service, which)
    folder = None
    version = what
    if first:
        from training_containers.finetune.first_version import first_version

        click.echo(f"making the artifact of {what}; seconds where it was made before, else some minutes", err=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        folder, manifest = first_version(what, CACHE, settings.service)
        version = manifest.model_version
        click.echo(f"{what} is version {version}, in {folder}", err=True)
    elif version not in (known := sorted({name for names in _uploaded(clouds).values() for name in names})):
        there = f"there are {', '.join(known)}" if known else "there is none yet"
        raise InvalidInputError(
            f"no version {version!r} is uploaded; {there}. A model: opportune release MODEL --first"
        )
    words = f"opportune release {BY_A_PERSON}{'first release' if first and reason.startswith('no ') else reason}"

    def put(services: CloudServices) -> dict[str, Any]:
        objects = services.objects
        source: Folder | Stored | None = Folder(folder) if folder else None
        if source is None and manifest_of(objects, version) is None:
            other = next(one for one in clouds.values() if manifest_of(one.objects, version) is not None)
            source = Stored(other.objects, version)
        sent = send(source, objects, version, _telling(services.cloud)) if source else 0
        found = make_stable(objects, settings.service, version, words)
        return _done(found, version, sent)

    repeat = f"repeat: opportune release {what}{' --first' if first else ''}"
    _carry_out(settings, clouds, put, repeat, create=first, no_wait=no_wait, minutes=minutes, as_json=as_json)


@click.command()
@service_option
@click.option("--to", "version", metavar="VERSION", help="Which; without, the one that was stable before.")
@_cloud_option
@_no_wait_option
@_timeout_option
@_reason_option
@json_option
def rollback(
    service: str | None, version: str | None, which: str, no_wait: bool, minutes: float, reason: str, as_json: bool
) -> None:
    """Let the version that served before serve again. No tick undoes it; `opportune pause` holds what would follow.

    The instances keep the version before loaded, so that it is in force within seconds. A rollback that is not in force
    yet is gone on with; one that is, is undone by a second one.

    \b
    Example: opportune rollback --reason "it answers in capitals"
    Example: opportune rollback --to m3f2a91c04e
    """
    settings, clouds = _wanted(service, which)
    wanted = version or _before(settings.service, clouds)
    words = f"opportune rollback {BY_A_PERSON}{reason}"

    def put(services: CloudServices) -> dict[str, Any]:
        return _done(make_stable(services.objects, settings.service, wanted, words), wanted, 0)

    repeat = f"repeat: opportune rollback --to {wanted}"
    _carry_out(settings, clouds, put, repeat, create=False, no_wait=no_wait, minutes=minutes, as_json=as_json)


def _before(service: str, clouds: Mapping[Cloud, CloudServices]) -> str:
    """The version to go back to, the same for every cloud: what the newest release replaced.

    Raises:
        InvalidInputError: nothing served before.
        OpportuneError: no cloud answers.
    """
    asked = ask(clouds, lambda one: (current(one.objects, service)[0], statuses(one.objects, service)[0]))
    asked.finish_if_nothing()
    found = [(release, told) for release, told in asked.answers.values() if release is not None]
    newest = max((release for release, _ in found), key=lambda release: release.changed_s, default=None)
    if newest is None:
        raise InvalidInputError(f"nothing is released to {service} yet: opportune release MODEL --first")
    going_on = len(found) < len(asked.answers) or any(
        release.of("stable") != newest.of("stable") or serving(release, told, time.time()).updating
        for release, told in found
    )
    if going_on and newest.reason.startswith("opportune rollback"):
        return str(newest.of("stable"))
    before = newest.of("previous")
    if before is None:
        known = sorted({name for names in _uploaded(clouds).values() for name in names})
        raise InvalidInputError(f"no version served before; name one with --to (there are {', '.join(known)})")
    return before


def _wanted(service: str | None, which: str) -> tuple[Settings, Mapping[Cloud, CloudServices]]:
    settings, clouds = deployment(service)
    chosen = {cloud: one for cloud, one in clouds.items() if which in (cloud, "both")}
    if not chosen:
        raise InvalidInputError(f"--cloud {which}: it is not configured; there is {', '.join(clouds)}")
    return settings, chosen


def _uploaded(clouds: Mapping[Cloud, CloudServices]) -> dict[Cloud, list[str]]:
    """The versions in each cloud that answers.

    Raises:
        OpportuneError: none does.
    """
    found: dict[Cloud, list[str]] = {}
    error: OpportuneError | None = None
    for cloud, services in clouds.items():
        try:
            found[cloud] = versions(services.objects)
        except OpportuneError as exc:
            error = exc
    if not found and error is not None:
        raise error
    return found


def _done(found: Release, version: str, sent: int) -> dict[str, Any]:
    return {
        "version": version,
        "revision": found.revision,
        "previous": found.of("previous"),
        "reason": found.reason,
        "sent_bytes": sent,
    }


def _carry_out(
    settings: Settings,
    clouds: Mapping[Cloud, CloudServices],
    put: Callable[[CloudServices], dict[str, Any]],
    repeat: str,
    *,
    create: bool,
    no_wait: bool,
    minutes: float,
    as_json: bool,
) -> None:
    """Change the release of each cloud, wait until it is in force, say what became of it."""
    for services in clouds.values():
        if paused := say_if_paused(services, settings.service):
            click.echo(paused, err=True)
    asked = ask(clouds, put, failing=f"{settings.service} is NOT changed on {{cloud}}")
    setups = {cloud: endpoint_setup(cloud, settings) for cloud in asked.answers}
    wanted = {cloud: str(done["version"]) for cloud, done in asked.answers.items()}
    wait = Wait(settings.service, wanted, clouds, setups, create, minutes * 60.0)
    if no_wait:
        for cloud in wanted if create else ():
            _begin(wait, cloud)
    else:
        wait.run()
    failed = {**asked.failed, **wait.failed}
    answers = outcome(wait, asked.answers)
    for cloud, done in answers.items():
        took = done["in_force_s"]
        state = "not in force yet" if took is None else f"in force after {took:.1f} s"
        say(f"{settings.service} on {cloud}: {done['version']}, revision {done['revision']}, {state}", as_json)
    for cloud, why in wait.failed.items():
        complain(f"{cloud}: {why}")
    if failed:
        complain(f"{repeat} --cloud {next(iter(failed)) if len(failed) == 1 else 'both'}")
    if as_json:
        emit({"service": settings.service, "clouds": answers, "failed": failed})
    if failed:
        sys.exit(PARTLY if len(failed) < len(clouds) or asked.answers else REFUSED)


def _begin(wait: Wait, cloud: Cloud) -> None:
    """Ask for an endpoint that is not there, without waiting for it."""
    try:
        look = wait.look(cloud)
    except OpportuneError as exc:
        look = None
        wait.failed[cloud] = str(exc)
    if look is not None:
        click.echo(f"{cloud}: {look.words}", err=True)
        if look.failed:
            wait.failed[cloud] = look.words


def _telling(cloud: Cloud) -> Progress:
    """Says how far an upload is, every few seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL_EVERY_S:
            last = time.monotonic()
            click.echo(f"{cloud}: {done / 1e6:.0f} of {total / 1e6:.0f} MB are there", err=True)

    return tell
