"""A model version into a cloud's object store, in parts: an interrupted transfer goes on where it stopped.

The manifest is written last: before it, a version is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from shared.artifact import MANIFEST
from shared.contracts import ModelManifest, decode
from shared.errors import InvalidInputError, NotFoundError
from shared.ports import ObjectStore
from shared.releases import manifest_key, model_folder

#: what is in memory at a time; stores take parts of 5 MiB and more
PART_BYTES: Final = 8 * 1024**2

#: bytes there, bytes in all
Progress = Callable[[int, int], None]


class Source(Protocol):
    """Where a version's files are read from."""

    manifest: bytes

    def sizes(self) -> Mapping[str, int]:
        """File name -> its size, without the manifest."""
        ...

    def read(self, name: str, start: int, length: int) -> bytes:
        """At most `length` bytes of a file."""
        ...


class Folder:
    """A version in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = (folder / MANIFEST).read_bytes()

    def sizes(self) -> Mapping[str, int]:
        """Those that the manifest names."""
        return {name: (self._folder / name).stat().st_size for name in decode(ModelManifest, self.manifest).files}

    def read(self, name: str, start: int, length: int) -> bytes:
        """From the file."""
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(length)


class Stored:
    """A version in another cloud's store."""

    def __init__(self, objects: ObjectStore, model_version: str) -> None:
        self._objects, self._prefix = objects, model_folder(model_version)
        self.manifest = objects.get(manifest_key(model_version))

    def sizes(self) -> Mapping[str, int]:
        """Those that the manifest names.

        Raises:
            NotFoundError: one is gone.
        """
        found = {entry.key.removeprefix(self._prefix): entry.size for entry in self._objects.entries(self._prefix)}
        for name in decode(ModelManifest, self.manifest).files:
            if name not in found:
                raise NotFoundError(
                    f"{self._objects.uri(self._prefix + name)} does not exist, though its manifest does"
                )
        return {name: found[name] for name in decode(ModelManifest, self.manifest).files}

    def read(self, name: str, start: int, length: int) -> bytes:
        """From the store."""
        return self._objects.get_range(self._prefix + name, start, length)


def manifest_of(objects: ObjectStore, model_version: str) -> bytes | None:
    """A version's manifest in a store; None where the version is not there."""
    try:
        return objects.get(manifest_key(model_version))
    except NotFoundError:
        return None


def send(source: Source, objects: ObjectStore, model_version: str, progress: Progress = lambda *_: None) -> int:
    """Make the version complete in `objects`; how many bytes were sent, 0 where it was there.

    Raises:
        InvalidInputError: another model lies there under the same version.
    """
    there = manifest_of(objects, model_version)
    if there is not None:
        if decode(ModelManifest, there).files != decode(ModelManifest, source.manifest).files:
            where = objects.uri(model_folder(model_version))
            raise InvalidInputError(f"{where} holds another model of the same version; versions are never replaced")
        return 0
    folder = model_folder(model_version)
    stored = {entry.key: entry.size for entry in objects.entries(folder)}
    sizes = source.sizes()
    total, done, sent = sum(sizes.values()), 0, 0
    for name, size in sizes.items():
        for length, needed in _file(source, name, size, objects, folder + name, stored.get(folder + name)):
            done, sent = done + length, sent + needed
            progress(done, total)
    objects.put(manifest_key(model_version), source.manifest)
    return sent + len(source.manifest)


def _file(
    source: Source, name: str, size: int, objects: ObjectStore, key: str, stored: int | None
) -> Iterator[tuple[int, int]]:
    """Send one file; of each part that is there now its size, and how much of it had to be sent."""
    if stored == size:
        yield size, 0
        return
    if size <= PART_BYTES:
        objects.put(key, source.read(name, 0, size))
        yield size, size
        return
    held = objects.parts(key)
    count = -(-size // PART_BYTES)
    for number in range(1, count + 1):
        start = (number - 1) * PART_BYTES
        length = min(PART_BYTES, size - start)
        needed = held.get(number) != length
        if needed:
            objects.put_part(key, number, source.read(name, start, length))
        yield length, length if needed else 0
    objects.finish_parts(key, count)
