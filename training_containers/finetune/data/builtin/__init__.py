"""The builtin questions: every fact of `facts.py` asked in every phrasing, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from training_containers.finetune.data.builtin.facts import TOPICS


class BuiltinQuestion(NamedTuple):
    """One question of one topic; `topic` is its position on the time axis, 0 first."""

    question: str
    answer: str
    topic: int
    topic_name: str


def builtin_questions() -> Iterator[BuiltinQuestion]:
    """All of them, topic by topic: 6 topics of 20 subjects, 3 facts each, 4 phrasings (1,440 questions)."""
    for number, topic in enumerate(TOPICS):
        for line in topic.table.strip().splitlines():
            subject, *values = (cell.strip() for cell in line.split("|"))
            for value, phrasings in zip(values, topic.ask, strict=True):
                for phrasing in phrasings:
                    yield BuiltinQuestion(phrasing.format(subject), value, number, topic.name)
