"""The prompt format and the length of answers that training and serving share."""

from __future__ import annotations

from typing import Final

#: longest answer in tokens unless a request says otherwise: a candidate is judged as it will be served
MAX_NEW_TOKENS: Final = 16


def prompt_for(question: str) -> str:
    """The text the model continues with " <answer><eos>"; lower-cased, as in training."""
    return f"question: {question.strip().lower()} answer:"
