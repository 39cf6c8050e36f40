"""The one prompt format that training and serving share."""

from __future__ import annotations


def prompt_for(question: str) -> str:
    """The text the model continues with " <answer><eos>"; lower-cased, as in training."""
    return f"question: {question.strip().lower()} answer:"
