import pytest

from functions.retraining.gate import checked, judge, quality
from shared.contracts import Metrics, encode
from shared.errors import ModelError


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


@pytest.fixture
def read(a_job, a_manifest):
    """A function: what lies beside the manifest, and what that says -> the manifest, checked."""

    def make(sizes, **changes):
        raw = encode(a_manifest(**{"model_version": "m2", "files": {"a.bin": X_SHA}} | changes))
        return checked(raw, sizes, a_job(parent_version="m1"))

    return make


def test_a_manifest_whose_files_are_there_is_what_the_model_is(read, a_manifest):
    sound = a_manifest(model_version="m2", files={"a.bin": X_SHA})
    assert read({"a.bin": 1, "manifest.json": 900}) == sound
    assert read({"a.bin": 1, "left over.tmp": 7}) == sound, "what it does not list is not copied either"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": {"a.bin": X_SHA, "b.bin": X_SHA}}, "lacks b.bin"),
        ({"files": {}}, "lists no file"),
        ({"job_id": "qa-7"}, "of another job, qa-7 of qa"),
        ({"service": "qb"}, "of another job, qa-1 of qb"),
        ({"model_version": "m1"}, "calls itself m1, as what it was trained from"),
        ({"model_version": "base"}, "calls itself base"),
        *(
            ({"files": {name: X_SHA}}, "no name of a file below it")
            for name in ("../a.bin", "x/../../a", "/etc/passwd", "a\\b", "manifest.json")
        ),
    ],
)
def test_a_manifest_that_is_not_this_models_or_lacks_a_file_is_refused(read, changes, words):
    with pytest.raises(ModelError) as refused:
        read({name: 1 for name in ("a.bin", *changes.get("files", {})) if name != "b.bin"}, **changes)
    assert words in str(refused.value)


@pytest.mark.parametrize("raw", [b"", b"{oops", b"[" * 100_000, b'{"version": 99}', b"{}", b"\xff"])
def test_what_is_no_manifest_of_ours_is_refused(raw, a_job):
    with pytest.raises(ModelError, match=r"manifest\.json"):
        checked(raw, {"a.bin": 1}, a_job())
