"""The object stores that a container reads from and writes to: `s3://…`, `azure-blob:…`, or a folder.

| address | what |
|---|---|
| s3://BUCKET[/PREFIX] | a bucket; credentials and region from where the SDK finds them |
| azure-blob:CONTAINER[/PREFIX] | a container of the storage account in the settings |
| dir:PATH | a folder: tests, local runs |
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from shared.errors import ConfigurationError, ConflictError, NotFoundError
from shared.settings import Settings
from shared.values import Document, ObjectEntry

#: objects of any size are read in pieces of this
CHUNK_BYTES: Final = 8 * 2**20
FORMS: Final = "dir:PATH, s3://bucket/prefix, azure-blob:container/prefix"


class Store(Protocol):
    """The part of an ObjectStore that a container needs; see shared.ports."""

    def get(self, key: str) -> bytes: ...

    def put(self, key: str, body: bytes) -> None: ...

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None: ...

    def entries(self, prefix: str) -> Iterable[ObjectEntry]: ...

    def get_range(self, key: str, start: int, length: int) -> bytes: ...


class FolderObjects:
    """Objects as files below a folder; each appears whole or not at all. Raises OSError where the disk does."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> bytes:
        """The file's content. Raises NotFoundError."""
        with self._found(key):
            return (self._root / key).read_bytes()

    def put(self, key: str, body: bytes) -> None:
        """Write, sync, rename."""
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial = Path(name)
        partial.chmod(0o644)
        partial.replace(target)

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None:
        """The file and its tag, which is that of its content; None when it has the tag `if_none_match`."""
        body = self.get(key)
        tag = hashlib.sha256(body).hexdigest()
        return None if tag == if_none_match else Document(body, tag)

    def put_tagged(self, key: str, body: bytes, *, if_etag: str | None) -> str:
        """Replace the file as it was read (None: absent). Raises ConflictError."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                found = self.get_tagged(key)
            except NotFoundError:
                found = None
            if (found.etag if found else None) != if_etag:
                raise ConflictError(f"{self.uri(key)}: somebody else was first")
            self.put(key, body)
        return hashlib.sha256(body).hexdigest()

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        """The files below the prefix, ascending; not those that are still being written."""
        files = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith("."))
        for path in sorted(files, key=lambda path: path.relative_to(self._root).as_posix()):
            key = path.relative_to(self._root).as_posix()
            if key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found = path.stat()
                    yield ObjectEntry(key, found.st_size, found.st_mtime)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on. Raises NotFoundError."""
        with self._found(key), (self._root / key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def uri(self, key: str) -> str:
        """The file's path."""
        return str(self._root / key)

    @contextlib.contextmanager
    def _found(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as exc:
            raise NotFoundError(f"{self.uri(key)} does not exist") from exc


class _Prefixed:
    """A store below a prefix."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix}/"

    def get(self, key: str) -> bytes:
        return self._store.get(self._prefix + key)

    def put(self, key: str, body: bytes) -> None:
        self._store.put(self._prefix + key, body)

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None:
        return self._store.get_tagged(self._prefix + key, if_none_match=if_none_match)

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        for entry in self._store.entries(self._prefix + prefix):
            yield entry._replace(key=entry.key.removeprefix(self._prefix))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._store.get_range(self._prefix + key, start, length)


def open_store(address: str, settings: Settings, option: str = "--store") -> Store:
    """The store at `address` (see above); `option` is who named it. Nothing is asked yet.

    Raises:
        ConfigurationError: another form.
    """
    scheme, _, rest = address.partition(":")
    place, _, prefix = rest.removeprefix("//").partition("/")
    prefix = prefix.strip("/")
    if scheme == "dir" and rest:
        return FolderObjects(Path(rest))
    store: Store
    if scheme == "s3" and place:
        from shared.adapters.aws.objects import S3Objects
        from shared.adapters.aws.session import AwsSession

        store = S3Objects(AwsSession(), place)
    elif scheme == "azure-blob" and place:
        from shared.adapters.aws.session import AwsSession
        from shared.adapters.azure.credential import azure_credential
        from shared.adapters.azure.objects import BlobObjects

        here = azure_credential(AwsSession().identity_token)
        store = BlobObjects(msgspec.structs.replace(settings, container=place), here)
    else:
        raise ConfigurationError(option, address, FORMS)
    return _Prefixed(store, prefix) if prefix else store
