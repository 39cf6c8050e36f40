"""The container follows its release: what it serves is what `release/{service}.json` in the store says.

Every few seconds the document is asked for anew. A version it names is fetched, checked and loaded beside those that
serve; `stable` answers from the moment it is loaded; what is named no more goes after its last request. Whatever goes
wrong (no store, no or a damaged document, one from a newer program, a version that cannot be loaded), what is loaded
goes on serving, and the instance says why in its status object, its log, its metrics and, while nothing serves, its
health.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shared.contracts import Cloud, InstanceStatus, InstanceVersion, Release, decode, encode
from shared.errors import (
    ContractError,
    InvalidInputError,
    ModelError,
    NotFoundError,
    OpportuneError,
    UnknownVersionError,
)
from shared.ports import Clock
from shared.releases import FOLLOW_EVERY_S, STATUS_EVERY_S, instance_key, release_key
from shared.values import Document
from training_containers.object_store import Store
from training_containers.serve.memory import Memory, needed_bytes
from training_containers.serve.model_registry import Registry
from training_containers.serve.version_cache import NotThereYetError, NotWantedError, VersionCache, find_manifest

log = logging.getLogger(__name__)

#: roles in the order in which their versions are loaded
_ORDER: Final = ("stable", "candidate", "previous")
#: a version that the store did not give is asked for again after this
_RETRY_S: Final = 10.0
#: how long the end of the process waits for the last status to be written
_LAST_WORD_S: Final = 3.0
_REASON_CHARS: Final = 500


class Followed(NamedTuple):
    """What the metrics say of a follower."""

    revision: int  # of the release document; 0 while none was read
    failed: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Setback:
    """Why a version is not loaded."""

    reason: str
    final: bool  # the version, or this machine, is to blame: only another manifest or revision changes that
    revision: int
    manifest_tag: str | None
    next_look: float  # monotonic


class _NoRoomYetError(OpportuneError):
    """Memory is about to be freed."""


class Follower:
    """The reconcile loop of one process."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        cache: VersionCache,
        *,
        service: str,
        cloud: Cloud,
        instance: str,
        on_error: Callable[[str], None] = lambda _kind: None,
        memory: Memory | None = None,
        clock: Clock = time.time,
        every_s: float = FOLLOW_EVERY_S,
        status_every_s: float = STATUS_EVERY_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        """`on_error` hears the kind of what went wrong: store, document, version or status."""
        self._store, self._registry, self._cache = store, registry, cache
        self._service, self._cloud, self._instance = service, cloud, instance
        self._on_error = on_error
        self._memory = memory or Memory()
        self._clock = clock
        self._every_s, self._status_every_s, self._retry_s = every_s, status_every_s, retry_s
        self._release: Release | None = None
        self._tag: str | None = None
        self._document_reason = self._store_reason = self._status_reason = ""
        self._deciding = threading.RLock()  # over the four below, and over what is loaded and unloaded
        self._loading: str | None = None
        self._setbacks: dict[str, _Setback] = {}
        self._loader: threading.Thread | None = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._told: InstanceStatus | None = None
        self._told_at = 0.0
        self._thread = threading.Thread(target=self._work, name="follow", daemon=True)

    # --- life

    def start(self) -> None:
        """Follow from now on, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop following, and tell that this instance is gone. What is loaded stays loaded."""
        self._stop.set()
        self._wake.set()
        # a store that does not answer must not keep the process from ending
        last = threading.Thread(target=self._end, name="follow-end", daemon=True)
        last.start()
        last.join(_LAST_WORD_S)

    def _end(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        gone = InstanceStatus(
            service=self._service, cloud=self._cloud, instance=self._instance, told_s=0.0, reason="it was stopped"
        )
        self._put(gone)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self.settle()
                self.tell()
            except Exception:  # whatever it was, the next look may fare better; what is loaded serves
                self._on_error("crash")
                log.exception("following failed", extra={"action": "follow"})
            self._wake.wait(self._every_s)
            self._wake.clear()

    # --- what is known

    @property
    def released(self) -> bool:
        """Whether a document was read."""
        return self._release is not None

    @property
    def followed(self) -> Followed:
        """For the metrics."""
        with self._deciding:
            failed = tuple(sorted(version for version, setback in self._setbacks.items() if setback.final))
        return Followed(self._release.revision if self._release else 0, failed)

    @property
    def reason(self) -> str:
        """Why this instance does not do what the document says, or cannot read it; "" when it does."""
        with self._deciding:
            waiting = [
                f"{version}: {setback.reason}"
                for version in self._named()
                if (setback := self._setbacks.get(version)) is not None
                and (not setback.final or self._registry.active is None)
            ]
            if not waiting and self._registry.active is None and self._loading:
                waiting = [f"{self._loading} is being loaded"]
        return "; ".join(filter(None, [self._store_reason, self._document_reason, *waiting]))[:_REASON_CHARS]

    # --- the document

    def look(self) -> None:
        """Read the document if it changed, and the manifests of versions that failed."""
        key = release_key(self._service)
        try:
            found = self._store.get_tagged(key, if_none_match=self._tag)
        except NotFoundError as exc:
            self._tag, self._store_reason = None, self._said(self._store_reason, "", "store")
            reason = f"the release is gone: {exc}" if self._release else f"nothing is released yet: {exc}"
            self._document_reason = self._said(self._document_reason, reason, "document")
            return
        except (OpportuneError, OSError) as exc:
            self._store_reason = self._said(self._store_reason, f"{key} cannot be read: {exc}", "store")
            return
        self._store_reason = self._said(self._store_reason, "", "store")
        if found is not None:
            self._tag = found.etag
            self._document_reason = self._said(self._document_reason, self._read(found), "document")
        self._look_at_manifests()

    def _read(self, found: Document) -> str:
        """Take the document over; why not, or ""."""
        key = release_key(self._service)
        try:
            release = decode(Release, found.body)
        except UnknownVersionError as exc:
            return f"{key} is from a newer program: {exc}"
        except ContractError as exc:
            return f"{key} cannot be understood: {exc}"
        if release.service != self._service:
            return f"{key} is of service {release.service!r}"
        if release.of("stable") is None:
            return f"{key} names no stable version"
        with self._deciding:
            self._release = release
            self._setbacks = {v: s for v, s in self._setbacks.items() if s.revision == release.revision}
        roles = {one.role: one.model_version for one in release.versions}
        log.info("release read", extra={"action": "follow", "revision": release.revision, "versions": roles})
        return ""

    def _look_at_manifests(self) -> None:
        """A version that failed is tried again once somebody wrote its manifest anew."""
        with self._deciding:
            failed = [(v, s) for v, s in self._setbacks.items() if s.final and s.manifest_tag and _due(s)]
        for version, setback in failed:
            try:
                changed = find_manifest(self._store, version, setback.manifest_tag) is not None
            except (OpportuneError, OSError):
                changed = False
            with self._deciding:
                if self._setbacks.get(version) is setback:
                    if changed:
                        del self._setbacks[version]
                    else:
                        later = time.monotonic() + self._retry_s
                        self._setbacks[version] = dataclasses.replace(setback, next_look=later)

    def _said(self, before: str, reason: str, kind: str) -> str:
        """`reason`, counted each time, logged once."""
        if reason:
            self._on_error(kind)
        if reason and reason != before:
            log.warning("going on with what is loaded", extra={"action": "follow", "reason": reason})
        elif before and not reason:
            log.info("following again", extra={"action": "follow"})
        return reason

    # --- what is loaded

    def settle(self) -> None:
        """One step towards what the document says: activate, unload, begin to load; never blocks for long."""
        with self._deciding:
            if self._release is None or self._stop.is_set():
                return
            named, loaded = self._named(), self._registry.loaded
            stable, previous = self._release.of("stable") or "", self._release.of("previous") or ""
            if stable in loaded:
                self._registry.activate(stable)
            elif self._registry.active is None and stable in self._setbacks and previous in loaded:
                # better what was stable before than nothing: every answer says which version spoke
                self._registry.activate(previous)
            for version in loaded - set(named):
                if version != self._registry.active:
                    self._registry.unload(version)
            kept = {*named, *self._registry.loaded, *([self._loading] if self._loading else [])}
            self._cache.remove_others(kept)
            if self._loading is None and (following := self._next(named)) is not None:
                self._loading = following
                self._loader = threading.Thread(
                    target=self._load, args=(following, self._release), name=f"load-{following}", daemon=True
                )
                self._loader.start()

    def _named(self) -> list[str]:
        """The versions that the document names, those first that are needed first."""
        found = [version for role in _ORDER if self._release and (version := self._release.of(role))]
        return list(dict.fromkeys(found))

    def _next(self, named: list[str]) -> str | None:
        """The first version that is to be loaded now."""
        for version in named:
            setback = self._setbacks.get(version)
            waits = setback is not None and (setback.final or not _due(setback))
            if version not in self._registry.loaded and not waits:
                return version
        return None

    def _load(self, version: str, release: Release) -> None:
        """In a thread of its own: fetch and load, then settle."""
        found: Document | None = None
        reason, final, wait_s = "it crashed while loading; see the log", True, self._retry_s
        try:
            found = find_manifest(self._store, version)
            assert found is not None
            folder = self._cache.fetch(self._store, version, found, lambda: self._wanted(version))
            self._make_room(version, folder)
            self._registry.load(folder, version, replaced=version == release.of("previous"))
            reason = ""
        except NotWantedError:
            reason = ""
        except (NotThereYetError, _NoRoomYetError) as exc:
            reason, final, wait_s = str(exc), False, self._every_s
        except (ModelError, InvalidInputError) as exc:
            reason = str(exc)
        except (OpportuneError, OSError) as exc:
            reason, final = str(exc), False
        except Exception:
            log.exception("loading crashed", extra={"action": "load", "model_version": version})
        finally:
            with self._deciding:
                before = self._setbacks.pop(version, None)
                self._loading = None
                # under another revision it is tried again, whatever happened under this one
                if reason and self._release is release:
                    tag, later = found.etag if found else None, time.monotonic() + wait_s
                    self._setbacks[version] = _Setback(reason, final, release.revision, tag, later)
            if reason:
                self._on_error("version")
                if before is None or before.reason != reason:
                    about = {"action": "load", "model_version": version, "reason": reason}
                    log.warning("model refused" if final else "model not there", extra=about)
            self.settle()
            self._wake.set()

    def _wanted(self, version: str) -> bool:
        with self._deciding:
            return version in self._named() and not self._stop.is_set()

    def _make_room(self, version: str, folder: Path) -> None:
        """Raises ModelError when there is not memory enough for another model, even without `previous`."""
        needed = needed_bytes(folder)
        if needed <= self._memory.free_bytes():
            return
        with self._deciding:
            previous = self._release.of("previous") if self._release else None
            spare = previous if previous != version and previous in self._registry.loaded else None
            if spare is not None and spare != self._registry.active:
                self._registry.unload(spare)
                why = f"unloaded: {version} needs the memory"
                revision = self._release.revision if self._release else 0
                self._setbacks[spare] = _Setback(why, True, revision, None, 0.0)
        gc.collect()
        free = self._memory.free_bytes()
        if needed > free and self._registry.draining:
            raise _NoRoomYetError(f"it waits for memory: {self._registry.draining} unloaded versions still answer")
        if needed > free:
            raise ModelError(
                f"it needs about {needed / 1e6:,.1f} MB of memory beside what is loaded, there are {free / 1e6:,.1f} MB"
            )

    # --- the status

    def tell(self) -> None:
        """Write this instance's status when it changed, or is due."""
        status = self._status()
        changed = self._told is None or msgspec.structs.replace(status, told_s=0.0) != self._told
        if (changed or time.monotonic() - self._told_at >= self._status_every_s) and self._put(status):
            self._told, self._told_at = msgspec.structs.replace(status, told_s=0.0), time.monotonic()

    def _status(self) -> InstanceStatus:
        with self._deciding:
            active, versions = self._registry.active, []
            for version in sorted({*self._registry.loaded, *self._named()}):
                setback = self._setbacks.get(version)
                if version in self._registry.loaded:
                    versions.append(
                        InstanceVersion(model_version=version, state="active" if version == active else "ready")
                    )
                elif setback is not None and setback.final and version != self._loading:
                    reason = setback.reason[:_REASON_CHARS]
                    versions.append(InstanceVersion(model_version=version, state="failed", reason=reason))
                else:
                    versions.append(InstanceVersion(model_version=version, state="loading"))
            return InstanceStatus(
                service=self._service,
                cloud=self._cloud,
                instance=self._instance,
                told_s=self._clock(),
                revision=self._release.revision if self._release else 0,
                active=active,
                versions=tuple(versions),
                reason=self.reason,
            )

    def _put(self, status: InstanceStatus) -> bool:
        try:
            self._store.put(instance_key(self._service, self._instance), encode(status))
        except (OpportuneError, OSError) as exc:
            self._status_reason = self._said(self._status_reason, f"the status is not written: {exc}", "status")
            return False
        self._status_reason = self._said(self._status_reason, "", "status")
        return True


def _due(setback: _Setback) -> bool:
    return time.monotonic() >= setback.next_look
