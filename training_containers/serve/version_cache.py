"""Versions on the local disk: fetched from the store file by file, each under its name only once its hash is right.

A process has a folder of its own below the cache; one that was killed finds its folder again, and goes on with what is
there. What is served is always such a copy: nobody else writes to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from shared.artifact import MANIFEST
from shared.contracts import ModelManifest, decode
from shared.errors import ConfigurationError, ContractError, IntegrityError, ModelError, NotFoundError, OpportuneError
from shared.releases import manifest_key, model_folder
from shared.values import Document
from training_containers.model.artifact import not_ours, sha256_of
from training_containers.object_store import CHUNK_BYTES, Store

log = logging.getLogger(__name__)


class NotThereYetError(OpportuneError):
    """A version has no manifest: it is still being written."""

    def __init__(self, version: str) -> None:
        super().__init__(f"{manifest_key(version)} is not there yet: the version is not complete")


class NotWantedError(OpportuneError):
    """The release names the version no more."""


class VersionCache:
    """This process's folder of versions."""

    def __init__(self, root: Path | None) -> None:
        """Take a folder below `root`, or below the temporary folder.

        Raises:
            ConfigurationError: nothing can be written there.
        """
        try:
            root = root or Path(tempfile.gettempdir()) / "opportune-versions"
            self._folder, self._lock = _own_folder(root)
            self.instance = _instance(self._folder)
        except OSError as exc:
            raise ConfigurationError(
                "--cache", str(root) if root else None, f"a folder that can be written to ({exc.strerror or exc})"
            ) from exc

    def close(self) -> None:
        """Leave the folder to another process."""
        self._lock.close()

    def folder(self, version: str) -> Path:
        """Where the version's files are, or will be."""
        return self._folder / "versions" / version

    def remove_others(self, kept: set[str]) -> None:
        """Remove the files of every version but these; what is loaded from them goes on."""
        for path in (self._folder / "versions").glob("*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def fetch(self, store: Store, version: str, found: Document, wanted: Callable[[], bool]) -> Path:
        """Bring the files that the manifest `found` lists, and return their folder; it holds nothing else.

        Raises:
            NotWantedError: `wanted` said no meanwhile.
            ModelError: the manifest or what it lists is unusable.
            UnavailableError, RefusedError, OSError: the store or the disk.
        """
        manifest = _manifest(found.body, version)
        folder = self.folder(version)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {e.key.removeprefix(model_folder(version)): e.size for e in store.entries(model_folder(version))}
        for name in manifest.files:
            if name not in sizes:
                raise ModelError(f"{model_folder(version)}{name} is missing, though the manifest lists it")
        kept = {*manifest.files, *(_partial(name) for name in manifest.files)}
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            if path.relative_to(folder).as_posix() not in kept:
                path.unlink()
        missing = sum(sizes[name] for name in manifest.files if not (folder / name).is_file())
        if (free := shutil.disk_usage(folder).free) < missing:
            raise ModelError(f"its files need {_mb(missing)} in {folder}, there are {_mb(free)}")
        for name, sha256 in manifest.files.items():
            _bring(store, model_folder(version) + name, sizes[name], sha256, folder, name, wanted)
        (folder / MANIFEST).write_bytes(found.body)
        return folder


def find_manifest(store: Store, version: str, known: str | None = None) -> Document | None:
    """The version's manifest and its tag; None when it still has the tag `known`. Raises NotThereYetError."""
    try:
        return store.get_tagged(manifest_key(version), if_none_match=known)
    except NotFoundError as exc:
        raise NotThereYetError(version) from exc


def _manifest(raw: bytes, version: str) -> ModelManifest:
    try:
        manifest = decode(ModelManifest, raw)
    except ContractError as exc:
        raise ModelError(f"{manifest_key(version)}: {exc}") from exc
    if manifest.model_version != version:
        raise ModelError(f"{manifest_key(version)} is of version {manifest.model_version!r}, not {version!r}")
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or not_ours(name) or name == MANIFEST:
            raise ModelError(f"{manifest_key(version)} lists {name!r}, which is no file of a model")
    return manifest


def _bring(store: Store, key: str, size: int, sha256: str, folder: Path, name: str, wanted: Callable[[], bool]) -> None:
    """One file, in ranges, from where a partial one ends. A right hash gives it its name."""
    target, partial = folder / name, folder / _partial(name)
    if target.is_file():
        if sha256_of(target) == sha256:
            return
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = partial.is_file() and partial.stat().st_size > 0
    found = _received(store, key, size, partial, wanted)
    if found != sha256 and begun:  # begun from another upload of that file
        partial.unlink()
        found = _received(store, key, size, partial, wanted)
    if found != sha256:
        partial.unlink()
        raise IntegrityError(key, sha256, found)
    partial.replace(target)


def _received(store: Store, key: str, size: int, partial: Path, wanted: Callable[[], bool]) -> str:
    """The sha256 of the object at `key`, after all of it lies in `partial`."""
    digest = hashlib.sha256()
    with partial.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        at = file.tell()
        if at > size:
            file.truncate(0)
            return _rest(store, key, size, 0, file, hashlib.sha256(), wanted)
        return _rest(store, key, size, at, file, digest, wanted)


def _rest(
    store: Store, key: str, size: int, at: int, file: IO[bytes], digest: hashlib._Hash, wanted: Callable[[], bool]
) -> str:
    while at < size:
        if not wanted():
            raise NotWantedError(f"{key}: the release names its version no more")
        chunk = store.get_range(key, at, min(CHUNK_BYTES, size - at))
        if not chunk:
            raise ModelError(f"{key} ends at {at} of {size} bytes: somebody is overwriting it")
        file.write(chunk)
        digest.update(chunk)
        at += len(chunk)
    return digest.hexdigest()


def _partial(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f".{path.name}.partial"))


def _own_folder(root: Path) -> tuple[Path, IO[str]]:
    """A folder that no other process uses while this one lives; the first free one, so that a restart finds its own."""
    for number in itertools.count():
        folder = root / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return folder, lock
    raise AssertionError


def _instance(folder: Path) -> str:
    """A name of this process that a restart keeps. Host names will not do: SageMaker gives all containers the same."""
    path = folder / "instance"
    if not path.is_file() or not path.read_text().strip():
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text().strip()


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
