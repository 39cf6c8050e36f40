"""Training data of a job: labelled pairs, read from the data channel, split by time, de-duplicated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from shared.contracts import FeedbackPair, decode, encode
from shared.errors import ContractError, InvalidInputError
from training_containers.finetune.data.held_out import Unit, question_key
from training_containers.finetune.data.question_sources import load_questions, read_lines
from training_containers.model.artifact import not_ours

#: fewer labelled pairs than this cannot be split into something to learn and something to judge by
MIN_PAIRS: Final = 8
#: of the recent records, one in this many is held out for evaluation
HELD_OUT_EVERY: Final = 3
# bounds of FeedbackPair
_MAX_ANSWERS: Final = 32
_MAX_CHARS: Final = 4096


class Split(NamedTuple):
    """What is learnt from and what is judged by.

    The evaluation set is recent and held out as *records*. Users do repeat themselves, and a closed-book model can
    only know what it was taught, so a question asked again may be in both; `unseen_share` says how much of the
    evaluation set was never asked before.
    """

    train: list[FeedbackPair]
    evaluation: list[FeedbackPair]
    unseen_share: float


def read_pairs(folder: Path, start_s: float | None = None, end_s: float | None = None) -> list[FeedbackPair]:
    """Every pair of the folder's *.jsonl files (also .gz, .xz) received in [start_s, end_s), oldest first.

    A record delivered twice is kept once.

    Raises:
        InvalidInputError: no file, a line that is not a FeedbackPair (named by number), or too few pairs.
    """
    files = sorted(p for p in folder.rglob("*.jsonl*") if p.is_file() and not not_ours(str(p.relative_to(folder))))
    if not files:
        raise InvalidInputError(f"{folder}: no *.jsonl file with training pairs")
    seen: set[bytes] = set()
    pairs = []
    for file in files:
        for pair in _pairs_of(file):
            late_enough = start_s is None or pair.received_s >= start_s
            early_enough = end_s is None or pair.received_s < end_s
            key = encode(pair)
            if late_enough and early_enough and key not in seen:
                seen.add(key)
                pairs.append(pair)
    if len(pairs) < MIN_PAIRS:
        raise InvalidInputError(
            f"{folder}: {len(pairs)} pairs received in [{start_s}, {end_s}); at least {MIN_PAIRS} are needed"
        )
    return sorted(pairs, key=lambda p: (p.received_s, p.question))


def _pairs_of(file: Path) -> Iterable[FeedbackPair]:
    for number, line in read_lines(file):
        try:
            pair = decode(FeedbackPair, line)
        except ContractError as exc:
            raise InvalidInputError(f"{file}, line {number}: {exc}") from exc
        if not pair.question.strip() or not all(answer.strip() for answer in pair.answers):
            raise InvalidInputError(f"{file}, line {number}: FeedbackPair: question or answer is blank")
        yield pair


def pairs_from_questions(spec: str) -> list[FeedbackPair]:
    """The questions of a file or data set as pairs, oldest first.

    Raises:
        InvalidInputError: they cannot be read, or are too few.
    """
    pairs = [
        FeedbackPair(question=q.question, answers=q.answers[:_MAX_ANSWERS], received_s=q.when)
        for q in load_questions(spec)
        if len(q.question) <= _MAX_CHARS
    ]
    if len(pairs) < MIN_PAIRS:
        raise InvalidInputError(f"{spec}: {len(pairs)} questions; at least {MIN_PAIRS} are needed")
    return pairs


def split_by_time(pairs: list[FeedbackPair], eval_share: float, max_eval: int, unit: Unit = "record") -> Split:
    """Every third of the newest records evaluates (`eval_share` of all, at most `max_eval`), the others train.

    Not the newest themselves, all of them: after a sudden drift they are what has to be learnt. Each side keeps one
    record per question, the newest, because answers change over time. With unit "question", nothing that is asked in
    the evaluation set stays in the training set (see held_out.py).
    """
    count = min(max(1, round(eval_share * len(pairs))), max_eval)
    step = max(1, min(HELD_OUT_EVERY, len(pairs) // count))
    held_out = set(range(len(pairs) - 1, len(pairs) - 1 - step * count, -step))
    evaluation = _newest_per_question([pair for i, pair in enumerate(pairs) if i in held_out])
    asked = {question_key(pair) for pair in evaluation} if unit == "question" else set()
    rest = [pair for i, pair in enumerate(pairs) if i not in held_out and question_key(pair) not in asked]
    train = _newest_per_question(rest)
    taught = {question_key(pair) for pair in train}
    unseen = sum(question_key(pair) not in taught for pair in evaluation) / len(evaluation)
    return Split(train, evaluation, unseen)


def _newest_per_question(pairs: list[FeedbackPair]) -> list[FeedbackPair]:
    return list({" ".join(pair.question.lower().split()): pair for pair in pairs}.values())


def digest(pairs: Iterable[FeedbackPair]) -> str:
    """sha256 over the pairs in order."""
    total = hashlib.sha256()
    for pair in pairs:
        total.update(encode(pair) + b"\n")
    return total.hexdigest()
