"""Model registry of one process: versions loaded side by side, swapped atomically, unloaded with their last request."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.artifact import MANIFEST
from shared.errors import ConflictError, InvalidInputError, ModelError, NotFoundError, UnavailableError
from training_containers.model.artifact import verify
from training_containers.model.engines.protocol import Engine
from training_containers.model.prompt import MAX_NEW_TOKENS
from training_containers.serve.batcher import Batcher

log = logging.getLogger(__name__)

#: the version of a model directory without a manifest
BASE_VERSION: Final = "base"
_READY: Final = "question: ready? answer:"


class VersionNotHereError(ConflictError):
    """A request names a version that this process has not loaded (HTTP 409); another one may have it."""

    def __init__(self, version: str, loaded: list[str]) -> None:
        super().__init__(f"model version {version!r} is not loaded here; loaded: {', '.join(loaded) or 'none'}")


def _unread(folder: str, names: list[str]) -> list[str]:
    """What no engine reads of a folder from elsewhere: weights in other formats, for one."""
    return [name for name in names if Path(name).suffix not in (".json", ".safetensors", ".onnx")]


@dataclass(slots=True)
class _Entry:
    """One version; guarded by the registry's lock."""

    batcher: Batcher
    leases: int = 0
    unloading: bool = False
    replaced: bool = False  # was active and is not any more


class Registry:
    """Which versions this process has, and which one is active."""

    def __init__(
        self,
        load_engine: Callable[[Path], Engine],
        *,
        max_batch: int = 16,
        max_waiting: int = 64,
        max_new_tokens: int = MAX_NEW_TOKENS,
        on_inactive: Callable[[str], None] = lambda _version: None,
    ) -> None:
        """`on_inactive` hears of every version that stops being active.

        `max_new_tokens` must fit into a model's window beside a prompt, or the model is refused.
        """
        self._load_engine = load_engine
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_new_tokens = max_new_tokens
        self._on_inactive = on_inactive
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._active: str | None = None
        self._draining = 0

    # --- requests

    @property
    def active(self) -> str | None:
        """The version that answers now."""
        return self._active

    @property
    def depth(self) -> int:
        """Requests that wait, over all versions."""
        with self._lock:
            return sum(e.batcher.depth for e in self._entries.values())

    @contextmanager
    def lease(self, version: str | None = None) -> Iterator[tuple[str, Batcher]]:
        """The named or the active version, not unloaded before the block ends.

        Raises:
            VersionNotHereError: the named version is not loaded.
            UnavailableError: no version is active yet.
        """
        with self._lock:
            name = version if version is not None else self._active
            if name is None:
                raise UnavailableError("the model", "none is loaded yet")
            entry = self._entries.get(name)
            if entry is None:
                raise VersionNotHereError(name, sorted(self._entries))
            entry.leases += 1
        try:
            yield name, entry.batcher
        finally:
            with self._lock:
                entry.leases -= 1
                last = entry.unloading and entry.leases == 0
            if last:
                self._end(entry)

    # --- versions

    @property
    def loaded(self) -> frozenset[str]:
        """Every version that answers when it is named."""
        with self._lock:
            return frozenset(self._entries)

    @property
    def draining(self) -> int:
        """Versions that are unloaded as soon as their last request is answered; their memory is not free yet."""
        return self._draining

    def engines(self) -> dict[str, tuple[str, float | None]]:
        """Loaded version -> its precision and, in 8 bits, its agreement with fp32."""
        with self._lock:
            loaded = {version: e.batcher.engine for version, e in self._entries.items()}
        return {version: (engine.precision, engine.agreement) for version, engine in loaded.items()}

    def judged(self, version: str) -> bool:
        """Whether labels about `version` count: it is active, or loaded to become active; not when it was replaced."""
        with self._lock:
            entry = self._entries.get(version)
            return entry is not None and not entry.replaced

    def load(self, folder: Path, version: str | None = None, *, activate: bool = False, replaced: bool = False) -> str:
        """Load the model in `folder`, which nobody else may write to, and return its version.

        `replaced`: it was active once, so labels about it do not count until it is again.

        Raises:
            IntegrityError: a file differs from the manifest.
            ModelError: the model is unusable, or is another version than `version`.
            ConflictError: that version is loaded already.
        """
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such model directory")
        manifest = verify(folder) if (folder / MANIFEST).is_file() else None
        name = manifest.model_version if manifest else BASE_VERSION
        if version is not None and name != version:
            raise ModelError(f"{folder} holds version {name!r}, not {version!r}")
        engine = self._load_engine(folder)
        try:
            engine.check(_READY, self._max_new_tokens)
        except InvalidInputError as exc:
            raise ModelError(f"--max-new-tokens {self._max_new_tokens} is too much for {name}: {exc}") from exc
        # the first run of a session allocates and tunes; no user should wait for it
        engine.generate([_READY], 2)
        batcher = Batcher(engine, max_batch=self._max_batch, max_waiting=self._max_waiting, name=name)
        with self._lock:
            duplicate = name in self._entries
            if not duplicate:
                self._entries[name] = _Entry(batcher, replaced=replaced)
        if duplicate:
            batcher.close()
            raise ConflictError(f"model version {name!r} is loaded already")
        log.info("model loaded", extra={"action": "load", "model_version": name})
        if activate:
            self.activate(name)
        return name

    def load_copy(self, folder: Path, *, activate: bool = False) -> str:
        """`load` of a copy that nobody can overwrite; of `folder` itself where there is nowhere to put one."""
        try:
            with tempfile.TemporaryDirectory(prefix="opportune-model-") as scratch:
                copy = Path(scratch) / "model"
                if folder.is_dir():
                    shutil.copytree(folder, copy, ignore=_unread if not (folder / MANIFEST).is_file() else None)
                # what is loaded stays, though its name is gone from the folder
                return self.load(copy if folder.is_dir() else folder, activate=activate)
        except OSError as exc:
            reason = f"{exc.strerror or exc}: serving {folder} in place; nobody may write to it meanwhile"
            log.warning("no copy of the model", extra={"action": "load", "reason": reason})
            return self.load(folder, activate=activate)

    def activate(self, version: str) -> None:
        """Send every request that names no version to `version` from now on.

        Raises:
            NotFoundError: it is not loaded.
        """
        with self._lock:
            entry = self._entries.get(version)
            if entry is None:
                raise NotFoundError(f"model version {version!r} is not loaded")
            before = self._active
            if before == version:
                return
            if before is not None:
                self._entries[before].replaced = True
            entry.replaced, self._active = False, version
        log.info("model activated", extra={"action": "activate", "model_version": version, "before": before})
        if before is not None:
            self._on_inactive(before)

    def unload(self, version: str) -> None:
        """Forget `version`; its requests are finished first.

        Raises:
            NotFoundError: unknown.
            InvalidInputError: it is active.
        """
        with self._lock:
            entry = self._entries.get(version)
            if entry is None:
                raise NotFoundError(f"model version {version!r} is not loaded")
            if version == self._active:
                raise InvalidInputError(f"model version {version!r} is active; activate another one first")
            del self._entries[version]
            entry.unloading = True
            self._draining += 1
            idle = entry.leases == 0
        if idle:
            self._end(entry)
        log.info("model unloaded", extra={"action": "unload", "model_version": version})
        self._on_inactive(version)

    def close(self, timeout_s: float) -> None:
        """Finish every request that was taken; for the end of the process."""
        with self._lock:
            batchers = [e.batcher for e in self._entries.values()]
        for batcher in batchers:
            batcher.close(timeout_s)

    def _end(self, entry: _Entry) -> None:
        """Stop an unloaded version's thread; nothing holds its engine afterwards."""
        entry.batcher.close()
        with self._lock:
            self._draining -= 1
