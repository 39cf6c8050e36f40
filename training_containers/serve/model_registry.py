"""Model registry of one process: versions loaded side by side, swapped atomically, unloaded with their last request."""

from __future__ import annotations

import enum
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.artifact import MANIFEST
from shared.contracts import ModelManifest
from shared.errors import ConflictError, InvalidInputError, ModelError, NotFoundError, OpportuneError, UnavailableError
from training_containers.model.artifact import unpack, verify
from training_containers.model.engines.protocol import Engine
from training_containers.serve.batcher import Batcher

log = logging.getLogger(__name__)

#: the version of a model directory without a manifest
BASE_VERSION: Final = "base"


class State(enum.StrEnum):
    """Where a version is."""

    LOADING = "loading"  # being verified and loaded in the background
    READY = "ready"  # loaded, answers when addressed by version
    ACTIVE = "active"  # answers every request that names no version
    FAILED = "failed"  # could not be loaded; the reason says why


@dataclass(slots=True)
class _Entry:
    """One version; guarded by the registry's lock."""

    version: str
    state: State
    artifact: str
    changed_s: float
    reason: str = ""
    batcher: Batcher | None = None
    manifest: ModelManifest | None = None
    leases: int = 0
    unloading: bool = False
    replaced: bool = False  # was active and is not any more
    activate_when_ready: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """One version as `GET /models` shows it."""

    version: str
    state: State
    artifact: str
    reason: str
    waiting: int
    precision: str  # empty before it is loaded


class Registry:
    """Which versions this process has, and which one is active."""

    def __init__(
        self,
        load_engine: Callable[[Path], Engine],
        *,
        keep: int = 2,
        max_batch: int = 16,
        max_waiting: int = 64,
        on_inactive: Callable[[str], None] = lambda _version: None,
    ) -> None:
        """Keep at most `keep` loaded versions; `on_inactive` hears of every version that stops being active."""
        self._load_engine = load_engine
        self._keep = keep
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_inactive = on_inactive
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one load at a time: each one needs memory and cores
        self._entries: dict[str, _Entry] = {}
        self._active: str | None = None

    # --- requests

    @property
    def active(self) -> str | None:
        """The version that answers now."""
        return self._active

    @property
    def depth(self) -> int:
        """Requests that wait, over all versions."""
        with self._lock:
            return sum(e.batcher.depth for e in self._entries.values() if e.batcher)

    @contextmanager
    def lease(self, version: str | None = None) -> Iterator[tuple[str, Batcher]]:
        """The named or the active version, not unloaded before the block ends.

        Raises:
            NotFoundError: the named version is not loaded.
            UnavailableError: no version is active yet.
        """
        with self._lock:
            name = version if version is not None else self._active
            if name is None:
                raise UnavailableError("the model", "none is loaded yet")
            entry = self._entries.get(name)
            if entry is None or entry.batcher is None or entry.unloading:
                raise NotFoundError(f"model version {name!r} is not loaded")
            entry.leases += 1
            batcher = entry.batcher
        try:
            yield name, batcher
        finally:
            if self._last_to_leave(entry):
                batcher.close()

    def _last_to_leave(self, entry: _Entry) -> bool:
        with self._lock:
            entry.leases -= 1
            return entry.unloading and entry.leases == 0

    # --- versions

    def listing(self) -> list[Listed]:
        """Every version, oldest change first."""
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda e: e.changed_s)
            return [
                Listed(
                    e.version,
                    e.state,
                    e.artifact,
                    e.reason,
                    e.batcher.depth if e.batcher else 0,
                    e.batcher.engine.precision if e.batcher else "",
                )
                for e in entries
            ]

    def engines(self) -> dict[str, tuple[str, float | None]]:
        """Loaded version -> its precision and, in 8 bits, its agreement with fp32."""
        with self._lock:
            loaded = {e.version: e.batcher.engine for e in self._entries.values() if e.batcher}
        return {version: (engine.precision, engine.agreement) for version, engine in loaded.items()}

    def judged(self, version: str) -> bool:
        """Whether labels about `version` count: it is active, or loaded to become active; not when it was replaced."""
        with self._lock:
            entry = self._entries.get(version)
            return entry is not None and entry.batcher is not None and not entry.replaced

    def load(self, artifact: Path, version: str | None = None, *, activate: bool = False) -> str:
        """Load an artifact directory or archive now and return its version.

        Raises:
            IntegrityError: a file differs from the manifest.
            ModelError: the artifact is unusable, or is another version than `version`.
        """
        with tempfile.TemporaryDirectory(prefix="opportune-model-") as scratch:
            folder, manifest = _open(artifact, Path(scratch))
            name = manifest.model_version if manifest else BASE_VERSION
            if version is not None and name != version:
                raise ModelError(f"{artifact} holds version {name!r}, not {version!r}")
            engine = self._load_engine(folder)
            # the first run of a session allocates and tunes; no user should wait for it
            engine.generate(["question: ready? answer:"], 2)
        batcher = Batcher(engine, max_batch=self._max_batch, max_waiting=self._max_waiting, name=name)
        with self._lock:
            entry = self._entries.get(name)
            duplicate = entry is not None and entry.batcher is not None
            wanted = activate or (entry is not None and entry.activate_when_ready)
            if not duplicate:
                self._entries[name] = _Entry(
                    name, State.READY, str(artifact), time.time(), batcher=batcher, manifest=manifest
                )
        if duplicate:
            batcher.close()
            raise ConflictError(f"model version {name!r} is loaded already")
        log.info("model loaded", extra={"action": "load", "model_version": name, "artifact": str(artifact)})
        if wanted:
            self.activate(name)
        self._unload_surplus(spare=name)
        return name

    def load_in_background(self, version: str, artifact: Path, *, activate: bool = False) -> State:
        """Start loading `version` unless it is loaded or loading; safe to repeat. Returns its state."""
        with self._lock:
            entry = self._entries.get(version)
            if entry is not None and entry.state is State.LOADING:
                entry.activate_when_ready |= activate
                return State.LOADING
            present = entry is not None and entry.batcher is not None
            if not present:
                self._entries[version] = _Entry(
                    version, State.LOADING, str(artifact), time.time(), activate_when_ready=activate
                )
        if present:
            if activate:
                self.activate(version)
            return State.ACTIVE if self._active == version else State.READY
        thread = threading.Thread(
            target=self._load_quietly, args=(version, artifact), name=f"load-{version}", daemon=True
        )
        thread.start()
        return State.LOADING

    def _load_quietly(self, version: str, artifact: Path) -> None:
        """A failed load is a state with a reason; the active version goes on serving."""
        reason = "it crashed while loading; see the log"
        try:
            with self._loading:
                self.load(artifact, version)
        except (OpportuneError, OSError) as exc:
            reason = str(exc)
            log.warning("model refused", extra={"action": "load", "model_version": version, "reason": reason})
        finally:
            with self._lock:
                if self._entries[version].state is State.LOADING:
                    self._entries[version] = _Entry(version, State.FAILED, str(artifact), time.time(), reason=reason)

    def activate(self, version: str) -> None:
        """Send every request that names no version to `version` from now on.

        Raises:
            NotFoundError: it is not loaded.
        """
        with self._lock:
            entry = self._entries.get(version)
            if entry is None or entry.batcher is None:
                raise NotFoundError(f"model version {version!r} is not loaded")
            before = self._active
            if before == version:
                return
            if before is not None:
                old = self._entries[before]
                old.state, old.replaced, old.changed_s = State.READY, True, time.time()
            entry.state, entry.replaced, self._active = State.ACTIVE, False, version
        log.info("model activated", extra={"action": "activate", "model_version": version, "before": before})
        if before is not None:
            self._on_inactive(before)

    def unload(self, version: str) -> None:
        """Forget `version`; its requests are finished first.

        Raises:
            NotFoundError: unknown.
            InvalidInputError: it is active.
            ConflictError: it is still loading.
        """
        with self._lock:
            entry = self._entries.get(version)
            if entry is None:
                raise NotFoundError(f"model version {version!r} is not loaded")
            if version == self._active:
                raise InvalidInputError(f"model version {version!r} is active; activate another one first")
            if entry.state is State.LOADING:
                raise ConflictError(f"model version {version!r} is still loading")
            del self._entries[version]
            entry.unloading = True
            idle = entry.leases == 0
        if idle and entry.batcher is not None:
            entry.batcher.close()
        log.info("model unloaded", extra={"action": "unload", "model_version": version})
        self._on_inactive(version)

    def close(self, timeout_s: float) -> None:
        """Finish every request that was taken; for the end of the process."""
        with self._lock:
            batchers = [e.batcher for e in self._entries.values() if e.batcher]
        for batcher in batchers:
            batcher.close(timeout_s)

    def _unload_surplus(self, spare: str) -> None:
        """Unload the longest unused versions beyond `keep`; never the active one, nor `spare`, which just came."""
        with self._lock:
            ready = [e for e in self._entries.values() if e.batcher and e.version not in (self._active, spare)]
            kept = len([e for e in self._entries.values() if e.batcher]) - len(ready)
            ready.sort(key=lambda e: e.changed_s)
            surplus = [e.version for e in ready[: max(0, len(ready) + kept - self._keep)]]
        for version in surplus:
            self.unload(version)


def _open(artifact: Path, scratch: Path) -> tuple[Path, ModelManifest | None]:
    """The artifact's verified directory; an archive is unpacked into `scratch`."""
    if artifact.is_file():
        unpack(artifact, scratch)
        artifact = scratch
    elif not artifact.is_dir():
        raise ModelError(f"{artifact}: no such model directory or archive")
    if (artifact / "model.tar.gz").is_file() and not (artifact / "config.json").is_file():
        return _open(artifact / "model.tar.gz", scratch)
    return artifact, verify(artifact) if (artifact / MANIFEST).is_file() else None
