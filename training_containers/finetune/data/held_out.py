"""Train/evaluation leakage check, and `held_out.json`, the hashes by which others can repeat it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from shared.contracts import FeedbackPair, encode
from shared.errors import ModelError
from training_containers.model.scoring import normalise

HELD_OUT_FILE: Final = "held_out.json"

#: question: nothing that is asked in the evaluation set is taught, in whichever case, punctuation or spacing.
#: record: the evaluation set's records are not taught, but users repeat themselves, and a question may be in both.
Unit = Literal["question", "record"]


class HeldOut(NamedTuple):
    """Hashes of what was taught and of what was asked; no hash is in both."""

    unit: Unit
    train: list[str]
    evaluation: list[str]
    shared_questions: int  # evaluation questions that are taught too; 0 when the unit is the question


def question_key(pair: FeedbackPair) -> str:
    """The question as far as it matters: case, punctuation, articles and spacing do not."""
    return normalise(pair.question) or pair.question


def _record_key(pair: FeedbackPair) -> str:
    return encode(pair).decode()


def prove(train: Iterable[FeedbackPair], evaluation: Iterable[FeedbackPair], unit: Unit) -> HeldOut:
    """Hashes of both sets.

    Raises:
        ModelError: a question (a record) of the evaluation set would be trained on.
    """
    train, evaluation = list(train), list(evaluation)
    key = question_key if unit == "question" else _record_key
    taught = _hashes(train, key)
    asked = _hashes(evaluation, key)
    if both := taught.keys() & asked.keys():
        raise ModelError(
            f"{len(both)} of {len(asked)} evaluation {unit}s would be trained on, for example "
            f"{asked[min(both)]!r}; refusing to train"
        )
    shared = len(_hashes(train, question_key).keys() & _hashes(evaluation, question_key).keys())
    return HeldOut(unit, sorted(taught), sorted(asked), shared)


def write(folder: Path, proof: HeldOut) -> None:
    """Beside the model; the manifest vouches for it like for any other file."""
    (folder / HELD_OUT_FILE).write_text(json.dumps(proof._asdict()))


def _hashes(pairs: Iterable[FeedbackPair], key: Callable[[FeedbackPair], str]) -> dict[str, str]:
    """Hash of the key -> the question."""
    return {hashlib.sha256(key(pair).encode()).hexdigest(): pair.question for pair in pairs}
