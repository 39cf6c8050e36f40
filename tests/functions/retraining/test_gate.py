import pytest

from functions.retraining.gate import judge, quality, read_manifest
from shared.contracts import Metrics, encode
from shared.errors import IntegrityError, ModelError


def metrics(bleu1, exact_match, examples=20):
    return Metrics(bleu1=bleu1, exact_match=exact_match, f1=0.0, rouge_l=0.0, examples=examples)


@pytest.fixture
def verdict(a_manifest):
    """A function: the scores of a model trained from m1 -> what the gate says."""

    def make(candidate, serving, serving_version="m1", margin=0.0):
        manifest = a_manifest(model_version="m2", parent_version="m1", candidate=candidate, serving=serving)
        return judge(manifest, serving_version, margin=margin, min_examples=8)

    return make


def test_quality_weighs_both_scores_equally():
    assert quality(metrics(0.6, 0.2)) == pytest.approx(0.4)


def test_equal_quality_passes_and_a_hair_less_does_not(verdict):
    assert verdict(metrics(0.5, 0.5), metrics(0.6, 0.4)).accepted
    assert not verdict(metrics(0.5, 0.49), metrics(0.6, 0.4)).accepted


def test_the_margin_is_in_units_of_quality(verdict):
    assert verdict(metrics(0.5, 0.4), metrics(0.5, 0.5), margin=0.06).accepted
    assert not verdict(metrics(0.5, 0.4), metrics(0.5, 0.5), margin=0.04).accepted


def test_the_reason_holds_both_qualities_and_the_number_of_examples(verdict):
    reason = verdict(metrics(0.8, 0.6), metrics(0.5, 0.5)).reason
    assert "0.700" in reason and "0.500" in reason and "20 examples" in reason


def test_too_few_examples_never_pass_however_good(verdict):
    assert not verdict(metrics(1.0, 1.0, examples=7), metrics(0.0, 0.0, examples=7)).accepted


def test_a_model_that_was_compared_with_another_one_is_not_judged(verdict):
    told = verdict(metrics(1.0, 1.0), metrics(0.0, 0.0), serving_version="m9")
    assert not told.accepted
    assert "m9 serves by now" in told.reason


def test_without_a_comparison_it_passes_only_if_nothing_serves(verdict):
    assert not verdict(metrics(1.0, 1.0), None).accepted
    assert verdict(metrics(0.1, 0.1), None, serving_version=None).accepted


X_SHA = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_sound_artifact_gives_its_manifest(prefix, a_manifest, a_tar):
    sound = a_manifest(files={"a.bin": X_SHA})
    assert read_manifest(a_tar({f"{prefix}a.bin": b"x", f"{prefix}manifest.json": encode(sound)})) == sound


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"a.bin": b"y"}, IntegrityError, "refusing to load"),
        ({}, ModelError, "lacks a.bin"),
        ({"a.bin": b"x", "extra.py": b"import os"}, ModelError, "holds extra.py"),
    ],
)
def test_a_changed_missing_or_smuggled_file_is_refused(files, error, words, a_manifest, a_tar):
    sound = a_manifest(files={"a.bin": X_SHA})
    with pytest.raises(error, match=words):
        read_manifest(a_tar({**files, "manifest.json": encode(sound)}))


def test_what_is_no_artifact_is_refused(a_tar):
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        read_manifest(a_tar({"a.bin": b"x"}))
    with pytest.raises(ModelError, match=r"no readable tar\.gz"):
        read_manifest(a_tar({"a.bin": b"x" * 5000})[:-40])
