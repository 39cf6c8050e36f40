"""Scores of an answer: BLEU-1, exact match and F1, each in [0, 1]. Shared by evaluation and live feedback.

Nothing is downloaded at run time and torch is not needed, so the serving container scores with the same code.
nltk takes about a second to import, so the first call pays for it; call `bleu1("", ("",))` early to pay in advance.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

_WORD: Final = re.compile(r"\w+")
_ARTICLE: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """Lower-cased words of any script; punctuation separates. A text without a word is its characters' own token."""
    lowered = text.lower()
    return _WORD.findall(lowered) or lowered.split()


def bleu1(prediction: str, answers: Iterable[str]) -> float:
    """BLEU with unigrams only, against all reference answers at once (nltk's `sentence_bleu`).

    Smoothing is nltk's method 1. It only touches precisions without a match, and for unigrams nltk already answers
    0 when nothing matches, so it changes no value; it is set to keep nltk from warning.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    hypothesis = words(prediction)
    if not hypothesis:
        return 0.0
    references = [words(answer) for answer in answers]
    return float(sentence_bleu(references, hypothesis, (1.0,), SmoothingFunction().method1))


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1.0 when the normalised prediction equals a normalised answer."""
    said = normalise(prediction)
    return float(any(said == normalise(answer) for answer in answers))


def f1(prediction: str, answers: Iterable[str]) -> float:
    """The best token F1 over the answers, after SQuAD's normalisation."""
    return _best(_f1_of_one, prediction, answers)


def _f1_of_one(prediction: str, answer: str) -> float:
    said, right = normalise(prediction).split(), normalise(answer).split()
    if not said or not right:
        return float(said == right)
    common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right))


def _best(score: Callable[[str, str], float], prediction: str, answers: Iterable[str]) -> float:
    return max((score(prediction, answer) for answer in answers), default=0.0)
