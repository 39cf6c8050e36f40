"""Releases: where versions and documents lie in a cloud's object store, and what the instances make of them. Pure.

models/{version}/…                    a version's files, each an object; manifest.json is written last
release/{service}.json                Release: what the cloud's serving containers serve
release/{service}/instances/{id}.json InstanceStatus: what one of them has loaded
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from shared.artifact import MANIFEST
from shared.contracts import InstanceStatus, Release, ReleasedVersion

#: an instance that has told nothing for so long is gone
INSTANCE_TTL_S: Final = 60.0
#: how often an instance tells its status although nothing changed
STATUS_EVERY_S: Final = 15.0
#: in the reason of a release that a person asked for: `opportune rollback by a person: …`
BY_A_PERSON: Final = "by a person: "
#: how often an instance looks for another release document
FOLLOW_EVERY_S: Final = 2.0


def model_folder(model_version: str) -> str:
    """Where a version's files lie."""
    return f"models/{model_version}/"


def manifest_key(model_version: str) -> str:
    """A version's manifest: a version without one is not there yet."""
    return f"{model_folder(model_version)}{MANIFEST}"


def release_key(service: str) -> str:
    """The release document."""
    return f"release/{service}.json"


def instances_prefix(service: str) -> str:
    """Where the instances tell what they have loaded."""
    return f"release/{service}/instances/"


def instance_key(service: str, instance: str) -> str:
    """One instance's status."""
    return f"{instances_prefix(service)}{instance}.json"


class Serving(NamedTuple):
    """What the instances of one cloud serve, taken together."""

    version: str | None  # what most of them answer with; None where none has told anything
    updating: bool  # the release's stable version is still being loaded somewhere
    reason: str = ""  # why the release is not in force, in an instance's own words


def serving(release: Release | None, statuses: Iterable[InstanceStatus], now_s: float) -> Serving:
    """What is served: the stable version once every instance that lives answers with it."""
    alive = [status for status in statuses if now_s - status.told_s <= INSTANCE_TTL_S]
    told = [status.active for status in alive if status.active is not None]
    # the most frequent one; of equally many the one that sorts last, so that everybody who asks gets the same
    version = max(sorted(set(told)), key=told.count, default=None)
    wanted = release.of("stable") if release else None
    if wanted is None:
        return Serving(version, updating=False)
    if alive and all(status.active == wanted for status in alive):
        return Serving(wanted, updating=False)
    if version == wanted and told.count(wanted) < len(alive):
        others = [status.active for status in alive if status.active not in (wanted, None)]
        version = max(sorted(set(others)), key=others.count, default=wanted)
    whys = sorted({status.reason for status in alive if status.reason} | _failures(wanted, alive))
    failed = any(one.model_version == wanted and one.state == "failed" for status in alive for one in status.versions)
    if not alive:
        whys = [
            f"no instance has told its state for {INSTANCE_TTL_S:g} s: does the endpoint run our image, and may "
            "it write to the store?"
        ]
    return Serving(version, updating=not failed, reason="; ".join(whys)[:500])


def _failures(wanted: str, alive: list[InstanceStatus]) -> set[str]:
    return {
        f"instance {status.instance} cannot load {wanted}: {one.reason}"
        for status in alive
        for one in status.versions
        if one.model_version == wanted and one.state == "failed"
    }


def released(release: Release | None, service: str, model_version: str, now_s: float, reason: str) -> Release:
    """The release in which `model_version` is stable and what was stable before is previous."""
    before = release.of("stable") if release else None
    previous = before if before != model_version else (release.of("previous") if release else None)
    versions = [ReleasedVersion(model_version=model_version, role="stable")]
    if previous is not None and previous != model_version:
        versions.append(ReleasedVersion(model_version=previous, role="previous"))
    return Release(
        service=service,
        revision=release.revision + 1 if release else 1,
        versions=tuple(versions),
        changed_s=now_s,
        reason=reason,
    )


def rolled_back(release: Release, now_s: float, reason: str) -> Release | None:
    """The release in which the previous version is stable again; None when there is none."""
    previous = release.of("previous")
    if previous is None:
        return None
    return released(release, release.service, previous, now_s, reason)
