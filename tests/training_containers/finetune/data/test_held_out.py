import hashlib
import json
from pathlib import Path

import pytest

from shared.contracts import FeedbackPair
from shared.errors import ModelError
from training_containers.finetune.data import held_out
from training_containers.finetune.data.pairs import split_by_time


def pair(question: str, at_s: float) -> FeedbackPair:
    return FeedbackPair(question=question, answers=("a",), received_s=at_s)


#: three questions, asked again and again, each time written differently
PAIRS = [pair(text, float(i)) for i, text in enumerate(["Who leads?", "who LEADS", " the  who leads? ", "Where?"] * 5)]
PAIRS += [pair(f"Which one is number {i}?", 100.0 + i) for i in range(20)]


def test_no_question_is_taught_and_asked_however_it_is_written() -> None:
    split = split_by_time(PAIRS, 0.5, 100, "question")
    proof = held_out.prove(split.train, split.evaluation, "question")
    assert not set(proof.train) & set(proof.evaluation)
    assert proof.shared_questions == 0
    assert split.unseen_share == 1.0
    assert {p.question for p in split.train} & {f"Which one is number {i}?" for i in range(20)}


def test_traffic_repeats_questions_and_the_proof_says_how_many() -> None:
    split = split_by_time(PAIRS, 0.5, 100, "record")
    proof = held_out.prove(split.train, split.evaluation, "record")
    assert not set(proof.train) & set(proof.evaluation)
    assert proof.shared_questions == 1  # who leads
    with pytest.raises(ModelError, match=r"\d+ of \d+ evaluation questions would be trained on, for example"):
        held_out.prove(split.train, split.evaluation, "question")


def test_a_record_that_is_on_both_sides_is_refused() -> None:
    with pytest.raises(ModelError, match=r"1 of 2 evaluation records would be trained on, for example 'Where\?'"):
        held_out.prove([pair("Where?", 1.0)], [pair("Where?", 1.0), pair("Where?", 2.0)], "record")


def test_others_can_check_a_question_against_the_file(tmp_path: Path) -> None:
    held_out.write(tmp_path, held_out.prove([pair("Taught?", 1.0)], [pair("Asked, the question?", 2.0)], "question"))
    told = json.loads((tmp_path / "held_out.json").read_text())
    assert told["evaluation"] == [hashlib.sha256(b"asked question").hexdigest()]
    assert told["train"] == [hashlib.sha256(b"taught").hexdigest()]
