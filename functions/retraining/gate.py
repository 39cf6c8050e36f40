"""The gate: a trained model goes live only if it is not worse than the serving one on the same fresh examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from shared.artifact import MANIFEST
from shared.contracts import Metrics, ModelManifest, TrainingJob, decode
from shared.errors import ContractError, ModelError
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


def checked(raw: bytes, sizes: Mapping[str, int], job: TrainingJob) -> ModelManifest:
    """The manifest of a job's model, after every file it lists was found; `sizes` is file name -> bytes.

    What is in the files nobody looks at here: whoever loads one compares its hash, and refuses it.

    Raises:
        ModelError: no manifest that this program can read, one of another job, or a file that is missing.
    """
    try:
        manifest = decode(ModelManifest, raw)
    except ContractError as exc:
        raise ModelError(f"{MANIFEST}: {exc}") from exc
    if (manifest.job_id, manifest.service) != (job.job_id, job.service):
        raise ModelError(f"it is of another job, {manifest.job_id} of {manifest.service}")
    if manifest.model_version in ("base", job.parent_version):
        raise ModelError(f"it calls itself {manifest.model_version}, as what it was trained from")
    for name in sorted(manifest.files):
        if name == MANIFEST or ".." in name.split("/") or name.startswith("/") or "\\" in name:
            raise ModelError(f"{MANIFEST} lists {name!r}, which is no name of a file below it")
        if name not in sizes:
            raise ModelError(f"it lacks {name}: it is missing, though the manifest lists it")
    if not manifest.files:
        raise ModelError(f"{MANIFEST} lists no file")
    return manifest
