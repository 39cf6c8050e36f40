"""A question with its answers and date, as every source of questions gives it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question as users would ask it, and every answer that counts as right (the first is the one to learn)."""

    question: str
    answers: tuple[str, ...]
    # its place on the time axis: POSIX seconds when the source is dated, else the topic's number
    when: float
    topic: str = ""


def posix_s(value: Any) -> float:
    """POSIX seconds of a number (taken as such) or of a date: 2020/01/03, 2020-01-03, 2020-01-03T10:00:00+00:00."""
    if isinstance(value, int | float):
        return float(value)
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value.replace("/", "-"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def plain(record: Any, number: int) -> Question:
    """A question from its fields: question, answers (or answer), and perhaps date or received_s, topic.

    Raises:
        KeyError, ValueError, TypeError: a field is missing or wrong.
    """
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    text = record["question"]
    answers = record["answers"] if "answers" in record else [record["answer"]]
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(text, str) or not text.strip():
        raise ValueError("question is not a text")
    if not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise ValueError("answers is not a list of texts")
    when = record.get("date", record.get("received_s", float(number)))
    topic = str(record.get("topic", ""))
    return Question(question=text.strip(), answers=tuple(a.strip() for a in answers), when=posix_s(when), topic=topic)
