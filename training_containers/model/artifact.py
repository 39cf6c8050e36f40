"""Model artifacts: a folder of files with a manifest of their hashes.

Only data formats (JSON, safetensors, ONNX), never pickle. Needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from shared.artifact import MANIFEST, verified
from shared.contracts import ModelManifest, encode


def model_version_for(job_id: str) -> str:
    """The version of the model that `job_id` trains: the same job always makes the same version."""
    return "m" + hashlib.sha256(job_id.encode()).hexdigest()[:10]


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def not_ours(name: str) -> bool:
    """Whether a file is what services and tools leave in any folder they see: hidden ones, and lists of objects."""
    path = PurePosixPath(name)
    return path.suffix == ".manifest" or any(part.startswith(".") for part in path.parts)


def hash_files(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of every file of a model in `folder` but the manifest itself."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: sha256_of(folder / name) for name in names if name != MANIFEST and not not_ours(name)}


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


def find_model(folder: Path, *, sealed: bool = False) -> Path | None:
    """`folder`, an input channel, when it holds a model; None if none.

    A folder that carries a manifest is verified; with `sealed`, one without is refused: it may be half written.

    Raises:
        ModelError: the model is damaged, or not sealed.
    """
    if not (folder / "config.json").is_file():
        return None
    if sealed or (folder / MANIFEST).is_file():
        verify(folder)
    return folder
