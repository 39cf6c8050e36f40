"""The ModelHost of both clouds: an endpoint whose containers follow the release document in their object store.

A release changes that document and nothing else. The endpoint's own management only says whether it can answer.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple, Protocol

from shared.contracts import InstanceStatus, Release, ReleasedVersion, decode, encode
from shared.errors import (
    ConflictError,
    ContractError,
    ModelError,
    NotFoundError,
    OpportuneError,
    RefusedError,
    UnavailableError,
)
from shared.ports import Clock, ObjectStore
from shared.releases import INSTANCE_TTL_S, instances_prefix, manifest_key, release_key, released, serving
from shared.values import HostState

#: a store's clock and ours may be so far apart
_SKEW_S: Final = 60.0
#: how often a write is tried against others that write at the same time
_ROUNDS: Final = 3
#: an instance that cannot load a version that others serve has so long to recover, or to be replaced
PATIENCE_S: Final = 300.0


class Managed(Protocol):
    """What an endpoint's management says of it."""

    def state(self) -> HostState:
        """Whether it can answer, where, and whether it is being changed; without a version. Raises UnavailableError."""
        ...


class _Read(NamedTuple):
    release: Release | None
    etag: str | None  # None: there is no document


class ReleasedHost:
    """ModelHost over an endpoint's management and the store that its containers follow."""

    def __init__(self, service: str, endpoint: Managed, objects: ObjectStore, clock: Clock = time.time) -> None:
        self._service = service
        self._endpoint = endpoint
        self._objects = objects
        self._clock = clock
        self._what = f"release of {service}"

    def state(self) -> HostState:
        """The endpoint, and what its instances make of the release."""
        managed = self._endpoint.state()
        release, statuses = self._read().release, self._statuses()
        told = serving(release, statuses, self._clock())
        known = told.version is not None
        reason = managed.reason or told.reason
        if release is None and not known:
            reason = reason or "nothing is released to it yet: `opportune release MODEL --first`"
        return managed._replace(
            version=told.version,
            healthy=managed.healthy and (known or release is None),
            # of one that cannot answer: whether it is being mended
            updating=told.updating if managed.healthy else managed.updating,
            reason=reason,
            release=release,
        )

    def deploy(self, model_version: str) -> None:
        """Make it the stable one; where it is and could not be loaded, take it back and say so."""
        key = manifest_key(model_version)
        if not any(entry.key == key for entry in self._objects.entries(key)):
            raise RefusedError(self._what, f"{self._objects.uri(key)} is not there; copy the model first")
        for _ in range(_ROUNDS):
            found = self._read()
            if found.release is not None and found.release.of("stable") == model_version:
                return self._judge(found.release, found.etag, model_version)
            now_s = self._clock()
            if self._write(released(found.release, self._service, model_version, now_s, "by a retrain"), found.etag):
                return None
        raise UnavailableError(self._what, "others change it all the time; it is tried again")

    def _judge(self, release: Release, etag: str | None, model_version: str) -> None:
        """Raise when its instances cannot load it, after what was stable before is so again."""
        now_s = self._clock()
        alive = [status for status in self._statuses() if now_s - status.told_s <= INSTANCE_TTL_S]
        whys = [
            f"instance {status.instance}: {one.reason}"
            for status in alive
            for one in status.versions
            if one.model_version == model_version and one.state == "failed" and status.active != model_version
        ]
        all_failed = len(whys) >= len(alive)
        going_on = len(whys) + sum(status.active == model_version for status in alive) < len(alive)
        if not whys or (not all_failed and (going_on or now_s - release.changed_s < PATIENCE_S)):
            return
        words = f"{len(whys)} of {len(alive)} instances cannot load {model_version}: {'; '.join(whys)}"[:500]
        if (before := release.of("previous")) is not None:
            # without what failed: nothing is gained by keeping it loaded, and a person's rollback looks otherwise
            undone = Release(
                service=release.service,
                revision=release.revision + 1,
                versions=(ReleasedVersion(model_version=before, role="stable"),),
                changed_s=now_s,
                reason=words,
            )
            self._write(undone, etag)  # if somebody else was first, theirs counts
        raise ModelError(words) if all_failed else RefusedError(self._what, words)

    def _read(self) -> _Read:
        """The document. One that cannot be read is nobody's to overwrite but a person's."""
        key = release_key(self._service)
        try:
            found = self._objects.get_tagged(key)
        except NotFoundError:
            return _Read(None, None)
        assert found is not None, "without a condition there is a document or an error"
        try:
            return _Read(decode(Release, found.body), found.etag)
        except ContractError as exc:
            raise UnavailableError(f"release document {key}", f"it cannot be read: {exc}") from exc

    def _write(self, release: Release, etag: str | None) -> bool:
        """Replace the document as it was read; False when somebody else did. An answer may have been lost."""
        key, body = release_key(self._service), encode(release)
        try:
            self._objects.put_tagged(key, body, if_etag=etag)
        except (ConflictError, UnavailableError) as exc:
            try:
                there = self._objects.get(key) == body
            except OpportuneError:
                there = False
            if not there and isinstance(exc, UnavailableError):
                raise
            return there
        return True

    def _statuses(self) -> list[InstanceStatus]:
        """What the instances told lately. One status that cannot be read is an instance that told nothing.

        Raises UnavailableError when none of them can be read: that is not the same as nobody being there.
        """
        since_s, found, why = self._clock() - INSTANCE_TTL_S - _SKEW_S, [], ""
        for entry in self._objects.entries(instances_prefix(self._service)):
            if entry.modified_s < since_s:
                continue
            try:
                found.append(decode(InstanceStatus, self._objects.get(entry.key)))
            except (NotFoundError, ContractError) as exc:  # gone between the two, or of another program
                why = f"{entry.key}: {exc}"
        if why and not found:
            raise UnavailableError(self._what, f"no instance's status can be read: {why}")
        return found
