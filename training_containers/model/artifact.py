"""Model artifacts: a folder of files with a manifest of their hashes, or the same packed as `model.tar.gz`.

Only data formats (JSON, safetensors, ONNX), never pickle. Needs neither torch nor transformers.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Final

from shared.artifact import MANIFEST, verified
from shared.contracts import ModelManifest, encode
from shared.errors import ModelError

ARCHIVE: Final = "model.tar.gz"

#: an archive that unpacks to more than this is not one of ours
MAX_UNPACKED_BYTES: Final = 8 * 1024**3


def model_version_for(job_id: str) -> str:
    """The version of the model that `job_id` trains: the same job always makes the same version."""
    return "m" + hashlib.sha256(job_id.encode()).hexdigest()[:10]


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of every file in `folder` but the manifest itself."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: sha256_of(folder / name) for name in names if name != MANIFEST}


def write_manifest(folder: Path, manifest: ModelManifest) -> None:
    """Write the manifest beside the files it names, last, so that a half-written artifact has none."""
    (folder / MANIFEST).write_bytes(encode(manifest))


def verify(folder: Path) -> ModelManifest:
    """The manifest of `folder`, after every file it names was found unchanged and no other file was found.

    Raises:
        IntegrityError: a file's content differs.
        ModelError: no or a wrong manifest, a file missing, or a file that the manifest does not list.
    """
    manifest = folder / MANIFEST
    return verified(manifest.read_bytes() if manifest.exists() else None, hash_files(folder), str(folder))


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` as a tar.gz whose bytes depend only on the files' names and contents."""
    partial = archive.with_name(archive.name + ".partial")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = path.stat().st_size
            info.mode = 0o644
            with path.open("rb") as file:
                tar.addfile(info, file)
    partial.replace(archive)


def unpack(archive: Path | bytes, folder: Path) -> None:
    """Extract a model archive into `folder`.

    Raises:
        ModelError: not a readable archive, too large, or a member that is no plain file inside `folder`.
    """
    name = archive if isinstance(archive, Path) else ARCHIVE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source = archive.open("rb") if isinstance(archive, Path) else io.BytesIO(archive)
        with source, tarfile.open(fileobj=source, mode="r:gz") as tar:
            total = 0
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise ModelError(f"{name}: {member.name} is a link or a device; refusing to unpack it")
                total += member.size
                if total > MAX_UNPACKED_BYTES:
                    raise ModelError(f"{name}: unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, FileNotFoundError) as exc:
        raise ModelError(f"{name}: not a usable model archive: {exc}") from exc
    except OSError as exc:
        # zlib damage inside a gzip member surfaces here on some Python versions
        raise ModelError(f"{name}: cannot be unpacked: {exc}") from exc


def find_model(folder: Path, scratch: Path, *, sealed: bool = False) -> Path | None:
    """The model folder in an input channel: extracted, or as `model.tar.gz` (unpacked into `scratch`); None if none.

    A folder that carries a manifest is verified; with `sealed`, one without is refused: it may be half written.

    Raises:
        ModelError: the model is damaged, or not sealed.
    """
    if (folder / ARCHIVE).is_file():
        unpack(folder / ARCHIVE, scratch)
        folder = scratch
    elif not (folder / "config.json").is_file():
        return None
    if sealed or (folder / MANIFEST).is_file():
        verify(folder)
    return folder
