"""The gate at its limits: what is just enough passes."""

import pytest

from functions.retraining.gate import judge
from shared.contracts import Metrics


@pytest.fixture
def verdict(a_manifest):
    """A function: qualities of candidate and serving model on so many examples -> what the gate says."""

    def make(ours, theirs, *, examples=20, margin=0.0, least=8):
        def scored(quality):
            return Metrics(bleu1=quality, exact_match=quality, f1=0.0, rouge_l=0.0, examples=examples)

        manifest = a_manifest(parent_version="m1", candidate=scored(ours), serving=scored(theirs))
        return judge(manifest, "m1", margin=margin, min_examples=least)

    return make


def test_the_least_number_of_examples_is_enough(verdict):
    assert verdict(0.75, 0.5, examples=8).accepted
    refused = verdict(0.75, 0.5, examples=7)
    assert (refused.accepted, refused.reason) == (False, "only 7 evaluation examples, at least 8 are needed to judge")


def test_a_model_that_is_worse_by_just_the_margin_passes(verdict):
    assert verdict(0.25, 0.5, margin=0.25).accepted
    assert not verdict(0.25, 0.5, margin=0.125).accepted
    assert verdict(0.5, 0.5).accepted


def test_scores_on_different_sets_say_nothing(a_manifest):
    few, many = (Metrics(bleu1=0.9, exact_match=0.9, f1=0.0, rouge_l=0.0, examples=n) for n in (20, 21))
    told = judge(a_manifest(candidate=few, serving=many), "base", margin=1.0, min_examples=8)
    assert (told.accepted, told.reason) == (False, "evaluated on different sets: 20 examples against 21")
