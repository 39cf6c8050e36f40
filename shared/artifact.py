"""Verification of a model: its manifest, and the files that are exactly those it lists.

A container checks a folder before it trains from or serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.contracts import ModelManifest, decode
from shared.errors import ContractError, IntegrityError, ModelError

MANIFEST: Final = "manifest.json"


def verified(raw: bytes | None, found: Mapping[str, str], artifact: str) -> ModelManifest:
    """The manifest `raw`, after every file it lists was found unchanged and no other file was found.

    `found` is file name -> sha256 in hex, without the manifest itself; `artifact` names it in the errors.

    Raises:
        IntegrityError: a file's content differs.
        ModelError: no or a wrong manifest, a file missing, or a file that the manifest does not list.
    """
    if raw is None:
        raise ModelError(f"{artifact}: no {MANIFEST}; this is not a model artifact")
    try:
        manifest = decode(ModelManifest, raw)
    except ContractError as exc:
        raise ModelError(f"{artifact}: {MANIFEST}: {exc}") from exc
    for name, expected in manifest.files.items():
        if name not in found:
            raise ModelError(f"{artifact} lacks {name}: it is missing, though the manifest lists it")
        if found[name] != expected:
            raise IntegrityError(name, expected, found[name])
    if unknown := sorted(found.keys() - manifest.files.keys()):
        raise ModelError(f"{artifact} holds {unknown[0]}: {unknown[0]} is not in the manifest; refusing to load it")
    return manifest
