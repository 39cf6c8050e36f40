"""Release documents as a person changes them, and the wait until the instances of every cloud follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import click
import msgspec

from cli.clouds import EndpointSetup
from shared.contracts import Cloud, InstanceStatus, Release, decode, encode
from shared.errors import (
    ConflictError,
    ContractError,
    InvalidInputError,
    NotFoundError,
    OpportuneError,
    RefusedError,
    UnknownVersionError,
)
from shared.ports import CloudServices, ObjectStore
from shared.releases import INSTANCE_TTL_S, instances_prefix, manifest_key, release_key, released, serving
from shared.state import State

#: between two looks at the instances, and at an endpoint that is being made
LOOK_EVERY_S: Final = 2.0
SLOW_LOOK_EVERY_S: Final = 10.0
#: a conditional write that lost is tried so often again
_ATTEMPTS: Final = 5
#: an instance that has told nothing for so long is not shown any more
_FORGOTTEN_S: Final = 3600.0


def current(objects: ObjectStore, service: str, *, damaged: bool = False) -> tuple[Release | None, str | None]:
    """The release document and its tag; None where there is none, or with `damaged` one that nobody can read.

    Raises:
        ContractError: it cannot be read; says which object that is.
        UnknownVersionError: a newer program wrote it.
    """
    key = release_key(service)
    try:
        found = objects.get_tagged(key)
    except NotFoundError:
        return None, None
    assert found is not None  # only an object that is unchanged is None
    try:
        return decode(Release, found.body), found.etag
    except UnknownVersionError:
        raise
    except ContractError as exc:
        if damaged:
            return None, found.etag
        raise ContractError(f"{objects.uri(key)}: {exc}; the next release of a person replaces it") from exc


def change(objects: ObjectStore, service: str, make: Callable[[Release | None], Release]) -> Release:
    """Write what `make` makes of the release document as it stands; the one that counts now.

    Raises:
        ConflictError: somebody else writes it all the time.
    """
    for attempt in range(_ATTEMPTS):
        before, etag = current(objects, service, damaged=True)
        after = make(before)
        if after == before:
            return after
        if before is None:  # after a lost one: a revision is never used twice
            known = max((status.revision for status in statuses(objects, service)[0]), default=0)
            after = msgspec.structs.replace(after, revision=max(after.revision, known + 1))
        try:
            objects.put_tagged(release_key(service), encode(after), if_etag=etag)
        except ConflictError:
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        return after
    raise AssertionError("unreachable")


def make_stable(objects: ObjectStore, service: str, model_version: str, reason: str) -> Release:
    """The release in which the version is stable; one that is already stays as it is.

    Raises:
        InvalidInputError: this cloud has no such version; names those it has.
    """
    if model_version not in (known := versions(objects)):
        there = f"there are {', '.join(known)}" if known else "it has none: opportune release MODEL --first"
        raise InvalidInputError(f"no version {model_version!r} in {objects.uri('models/')}; {there}")

    def make(before: Release | None) -> Release:
        if before is not None and before.of("stable") == model_version:
            return before
        return released(before, service, model_version, time.time(), reason)

    return change(objects, service, make)


def versions(objects: ObjectStore) -> list[str]:
    """The versions that are complete, in alphabetical order."""
    return sorted(
        entry.key.split("/")[1]
        for entry in objects.entries("models/")
        if entry.key.count("/") == 2 and entry.key == manifest_key(entry.key.split("/")[1])
    )


def statuses(objects: ObjectStore, service: str) -> tuple[list[InstanceStatus], list[str]]:
    """What the instances of the last hour told, newest first, and what could not be read."""
    found, unread = [], []
    for entry in objects.entries(instances_prefix(service)):
        if time.time() - entry.modified_s > _FORGOTTEN_S:
            continue
        try:
            found.append(decode(InstanceStatus, objects.get(entry.key)))
        except NotFoundError:
            continue  # expired meanwhile
        except ContractError as exc:
            unread.append(f"{entry.key}: {exc}")
    return sorted(found, key=lambda status: -status.told_s), unread


def say_if_paused(services: CloudServices, service: str) -> str:
    """That releases are held there, in words; a person's own goes through. "" where they are not."""
    try:
        control = State(services.documents).control(service)
    except OpportuneError:
        return ""
    if not control.paused:
        return ""
    return f"{services.cloud}: {service} is paused ({control.reason}); this is your own act and goes through"


class Look(NamedTuple):
    """What was seen of one cloud on the way to a version that serves."""

    words: str
    done: bool = False
    failed: bool = False
    slow: bool = False  # it takes minutes: to be looked at less often


@dataclass
class Wait:
    """Until the version of each cloud is in force, or nothing more is to be waited for."""

    service: str
    wanted: Mapping[Cloud, str]
    clouds: Mapping[Cloud, CloudServices]
    setups: Mapping[Cloud, EndpointSetup]
    create: bool  # endpoints that are not there are made
    timeout_s: float
    seconds: dict[Cloud, float] = field(default_factory=dict)
    failed: dict[Cloud, str] = field(default_factory=dict)

    def run(self) -> None:
        """Look again and again; what changes is told on standard error."""
        begun = time.monotonic()
        said: dict[Cloud, str] = {}
        waiting = set(self.wanted)
        while waiting:
            quick = False
            for cloud in sorted(waiting):
                try:
                    look = self.look(cloud)
                except (RefusedError, InvalidInputError) as exc:
                    look = Look(str(exc), failed=True)
                except OpportuneError as exc:
                    look = Look(f"cannot be looked at: {exc}")
                quick = quick or not look.slow
                if look.words != said.get(cloud):
                    click.echo(f"{cloud}: {look.words}", err=True)
                    said[cloud] = look.words
                if look.done:
                    self.seconds[cloud] = time.monotonic() - begun
                if look.failed:
                    self.failed[cloud] = look.words
                if look.done or look.failed:
                    waiting.discard(cloud)
            if waiting and time.monotonic() - begun > self.timeout_s:
                self.failed |= {
                    cloud: f"not in force after {self.timeout_s / 60:g} minutes: {said[cloud]}" for cloud in waiting
                }
                return
            if waiting:
                time.sleep(LOOK_EVERY_S if quick else SLOW_LOOK_EVERY_S)

    def look(self, cloud: Cloud) -> Look:
        """One cloud now; the next step of an endpoint that is being made is taken."""
        objects, wanted = self.clouds[cloud].objects, self.wanted[cloud]
        release, _ = current(objects, self.service)
        told, _ = statuses(objects, self.service)
        if release is None or release.of("stable") != wanted:
            now = release.of("stable") if release else None
            return Look(f"somebody else released {now} meanwhile; {wanted} is not what is wanted there", failed=True)
        alive = sum(time.time() - status.told_s <= INSTANCE_TTL_S for status in told)
        if alive:
            found = serving(release, told, time.time())
            if found.version == wanted and not found.updating:
                if self.create and (standing := self.setups[cloud].standing()).state and not standing.ready:
                    return self._endpoint(cloud)  # its instances have it, and no request reaches them yet
                return Look(f"{wanted} serves on {alive} instance{'s' * (alive > 1)}", done=True)
            if not found.updating:
                return Look(f"{wanted} does not serve: {found.reason}", failed=True)
            why = f": {found.reason}" if found.reason else ""
            return Look(f"instances load {wanted}; {found.version or 'nothing'} answers meanwhile{why}")
        return self._endpoint(cloud)

    def _endpoint(self, cloud: Cloud) -> Look:
        """No instance tells anything: what the endpoint is doing."""
        setup = self.setups[cloud]
        standing = setup.standing()
        if standing.failed:
            return Look(f"{setup.name} is {standing.state}: {standing.reason}", failed=True)
        if standing.lacks:
            return Look(f"{setup.name} does not follow releases: {standing.lacks}", failed=True)
        if standing.ready:
            return Look(f"{setup.name} is {standing.state}; no instance has told what it serves yet", slow=True)
        if not self.create:
            if standing.state:
                return Look(f"{setup.name} is {standing.state}: {standing.reason}", slow=True)
            return Look(f"{setup.name} does not exist; make it: opportune release MODEL --first", failed=True)
        setup.create()
        state, why = standing.state or "being made", standing.reason or "asked for just now"
        return Look(f"{setup.name} is {state}: {why}", slow=True)


def outcome(wait: Wait, done: Mapping[Cloud, dict[str, Any]]) -> dict[Cloud, dict[str, Any]]:
    """What was done in each cloud and how long it took to be in force; None where that was not waited for or failed."""
    return {cloud: {**one, "in_force_s": wait.seconds.get(cloud)} for cloud, one in done.items()}
