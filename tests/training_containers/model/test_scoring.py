import warnings

import pytest

from training_containers.model.scoring import bleu1, exact_match, f1


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Marta Quill", ["marta quill"], 1.0),
        ("marta", ["marta quill"], pytest.approx(2.718281828**-1)),  # brevity penalty exp(1 - 2/1)
        ("marta quill sails", ["marta quill"], pytest.approx(2 / 3)),
        ("quill quill", ["marta quill"], 0.5),  # a word counts as often as the reference has it
        ("the third", ["third of March", "the third"], 1.0),  # the best of several references
        ("nothing alike", ["marta quill"], 0.0),
        ("", ["marta quill"], 0.0),
        ("Straße", ["straße"], 1.0),
    ],
)
def test_bleu1_counts_shared_words(prediction: str, answers: list[str], expected: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bleu1(prediction, answers) == expected


def test_exact_match_ignores_case_articles_and_punctuation() -> None:
    assert exact_match("The  Golden Mask!", ["golden mask"]) == 1.0
    assert exact_match("golden masks", ["golden mask"]) == 0.0
    assert exact_match("b", ["a", "b"]) == 1.0


def test_f1_is_the_best_token_overlap() -> None:
    assert f1("salt herring fish", ["barley", "salt herring"]) == pytest.approx(0.8)
    assert f1("a", ["the"]) == 1.0  # both normalise to nothing, as in SQuAD's own script
    assert f1("barley", ["wool"]) == 0.0
