import io
import tarfile

import pytest

from shared.contracts import Metrics, ModelManifest, encode
from shared.errors import IntegrityError, ModelError
from shared.gate import judge, quality, read_manifest


def metrics(bleu1, exact_match, examples=20):
    return Metrics(bleu1=bleu1, exact_match=exact_match, f1=0.0, rouge_l=0.0, examples=examples)


def manifest(candidate, serving, **changes):
    plain = {
        "service": "qa",
        "model_version": "m2",
        "parent_version": "m1",
        "job_id": "qa-1",
        "trace_id": "0" * 32,
        "created_s": 0.0,
        "base_model": "tiny",
        "data_start_s": 0.0,
        "data_end_s": 1.0,
        "data_sha256": "0" * 64,
        "train_examples": 1,
        "eval_sha256": "0" * 64,
        "candidate": candidate,
        "serving": serving,
        "duration_s": 1.0,
        "files": {},
    }
    return ModelManifest(**plain | changes)


def verdict(candidate, serving, serving_version="m1", margin=0.0):
    return judge(manifest(candidate, serving), serving_version, margin=margin, min_examples=8)


def test_quality_weighs_both_scores_equally():
    assert quality(metrics(0.6, 0.2)) == pytest.approx(0.4)


def test_equal_quality_passes_and_a_hair_less_does_not():
    assert verdict(metrics(0.5, 0.5), metrics(0.6, 0.4)).accepted
    assert not verdict(metrics(0.5, 0.49), metrics(0.6, 0.4)).accepted


def test_the_margin_is_in_units_of_quality():
    assert verdict(metrics(0.5, 0.4), metrics(0.5, 0.5), margin=0.06).accepted
    assert not verdict(metrics(0.5, 0.4), metrics(0.5, 0.5), margin=0.04).accepted


def test_the_reason_holds_both_qualities_and_the_number_of_examples():
    reason = verdict(metrics(0.8, 0.6), metrics(0.5, 0.5)).reason
    assert "0.700" in reason and "0.500" in reason and "20 examples" in reason


def test_too_few_examples_never_pass_however_good():
    assert not verdict(metrics(1.0, 1.0, examples=7), metrics(0.0, 0.0, examples=7)).accepted


def test_a_model_that_was_compared_with_another_one_is_not_judged():
    told = verdict(metrics(1.0, 1.0), metrics(0.0, 0.0), serving_version="m9")
    assert not told.accepted
    assert "m9 serves by now" in told.reason


def test_without_a_comparison_it_passes_only_if_nothing_serves():
    assert not verdict(metrics(1.0, 1.0), None).accepted
    assert verdict(metrics(0.1, 0.1), None, serving_version=None).accepted


def packed(files, kind="w:gz"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=kind) as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return content.getvalue()


X_SHA = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_sound_artifact_gives_its_manifest(prefix):
    sound = manifest(metrics(1, 1), None, files={"a.bin": X_SHA})
    assert read_manifest(packed({f"{prefix}a.bin": b"x", f"{prefix}manifest.json": encode(sound)})) == sound


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"a.bin": b"y"}, IntegrityError, "refusing to load"),
        ({}, ModelError, "lacks a.bin"),
        ({"a.bin": b"x", "extra.py": b"import os"}, ModelError, "holds extra.py"),
    ],
)
def test_a_changed_missing_or_smuggled_file_is_refused(files, error, words):
    sound = manifest(metrics(1, 1), None, files={"a.bin": X_SHA})
    with pytest.raises(error, match=words):
        read_manifest(packed({**files, "manifest.json": encode(sound)}))


def test_what_is_no_artifact_is_refused():
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        read_manifest(packed({"a.bin": b"x"}))
    with pytest.raises(ModelError, match=r"no readable tar\.gz"):
        read_manifest(packed({"a.bin": b"x" * 5000})[:-40])
