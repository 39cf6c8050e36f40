"""The gate: a trained model goes live only if it is not worse than the serving one on the same fresh examples."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from typing import NamedTuple

from shared.artifact import MANIFEST, verified
from shared.contracts import Metrics, ModelManifest
from shared.errors import ModelError
from shared.quality import quality as quality_of


class Verdict(NamedTuple):
    """Whether the candidate may go live, and why, in words."""

    accepted: bool
    reason: str


def quality(metrics: Metrics) -> float:
    """The quality of a model (`shared.quality`), in [0, 1]: what the policy's reward is made of."""
    return quality_of(metrics.bleu1, metrics.exact_match)


def judge(manifest: ModelManifest, serving_version: str | None, *, margin: float, min_examples: int) -> Verdict:
    """Compare candidate and serving model on the manifest's evaluation set.

    `serving_version` is what serves now (None: nothing yet): a comparison with another model says nothing about it.
    """
    candidate, serving = manifest.candidate, manifest.serving
    if candidate.examples < min_examples:
        return Verdict(
            False, f"only {candidate.examples} evaluation examples, at least {min_examples} are needed to judge"
        )
    if serving_version is None:
        return Verdict(True, f"nothing serves yet: quality {quality(candidate):.3f}")
    if serving is None:
        return Verdict(False, f"the serving model {serving_version} was not evaluated beside the candidate")
    if serving.examples != candidate.examples:
        return Verdict(False, f"evaluated on different sets: {candidate.examples} examples against {serving.examples}")
    if manifest.parent_version != serving_version:
        return Verdict(
            False, f"compared with {manifest.parent_version}, but {serving_version} serves by now; retrain from it"
        )
    ours, theirs = quality(candidate), quality(serving)
    words = (
        f"quality {ours:.3f} (BLEU-1 {candidate.bleu1:.3f}, exact match {candidate.exact_match:.3f}) against "
        f"{theirs:.3f} (BLEU-1 {serving.bleu1:.3f}, exact match {serving.exact_match:.3f}) of {serving_version} "
        f"on {candidate.examples} examples"
    )
    if ours < theirs - margin:
        return Verdict(False, f"worse than the serving model by more than {margin:g}: {words}")
    return Verdict(True, f"not worse than the serving model: {words}")


def read_manifest(artifact: bytes) -> ModelManifest:
    """The manifest inside a model.tar.gz, after every file it names was found unchanged.

    Raises:
        ModelError: no archive, no or a wrong manifest, or a file is missing or unknown.
        IntegrityError: a file's content differs from the manifest.
    """
    found: dict[str, str] = {}
    raw: bytes | None = None
    try:
        with tarfile.open(fileobj=io.BytesIO(artifact), mode="r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None:
                    continue
                name = member.name.removeprefix("./")
                if name == MANIFEST:
                    raw = stream.read()
                else:
                    found[name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError) as exc:
        raise ModelError(f"the artifact is no readable tar.gz: {exc}") from exc
    return verified(raw, found, "the artifact")
