"""Build and cache the packages that the embedded clouds run: what `make package` deploys, made once per content.

folder = packaged("aws")  # build/packages/aws
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import sys
from pathlib import Path
from typing import Final

from infra import package
from local.runtimes.process import EMULATOR, PYTHON, ROOT
from shared.contracts import Cloud
from shared.errors import InvalidInputError, OpportuneError

CACHE: Final = ROOT / "build" / "packages"
#: what a package depends on besides the project's own modules
_ALSO: Final = ("infra/package.py", "infra/trim.py")


class PackagingError(OpportuneError):
    """The functions could not be packaged."""


def packaged(cloud: Cloud, cache: Path = CACHE) -> Path:
    """The folder of the cloud's package for this machine; built when a source or a lock file has changed.

    Raises:
        InvalidInputError: the functions' runtimes are not installed, or not for this machine.
        PackagingError: it could not be built; the message says why.
    """
    for needed in (PYTHON, EMULATOR):
        if not needed.exists():
            raise InvalidInputError(
                f"{needed} was not found, and the functions run on it; run `make .venv313/.installed`"
            )
    cache.mkdir(parents=True, exist_ok=True)
    folder, stamp = cache / cloud, cache / f"{cloud}.inputs"
    with (cache / f"{cloud}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs that start together build it once
        wanted = inputs_digest(cloud)
        if folder.exists() and stamp.exists() and stamp.read_text() == wanted:
            return folder
        stamp.unlink(missing_ok=True)
        try:
            package.build(cloud, architecture(), cache)
        except package.PackageError as exc:
            raise PackagingError(str(exc)) from exc
        stamp.write_text(wanted)
    return folder


def architecture() -> str:
    """This machine, as infra.package names it. Raises InvalidInputError for one that it does not build for."""
    machine = platform.machine()
    for name, wheels in package.ARCHITECTURES.items():
        if sys.platform == "linux" and machine in (name, wheels):
            return name
    raise InvalidInputError(
        f"the functions' packages are for Linux on x86_64 or arm64, not {sys.platform} on {machine}"
    )


def inputs_digest(cloud: Cloud) -> str:
    """Changes when anything that goes into the cloud's package, or that makes it, changes."""
    digest = hashlib.sha256()
    sources = [path for name in package.PROJECT for path in sorted((ROOT / name).rglob("*"))]
    wanted = [path for path in sources if path.suffix in package.SUFFIXES and "__pycache__" not in path.parts]
    named = [*package.ROOT_FILES[cloud], *_ALSO, f"requirements/functions-{cloud}.txt"]
    for path in [*wanted, *(ROOT / name for name in named)]:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(package.LEFT_OUT[cloud]):
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
