"""Interface of an inference engine: prompts in, greedy answers out. The server imports this and no engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

Bits = Literal["fp32", "int8"]


class Answer(NamedTuple):
    """One generated answer."""

    text: str
    tokens: tuple[int, ...]  # without the end-of-text token
    finished: bool  # the model ended it; False when max_new_tokens did


class Engine(Protocol):
    """Turns prompts into answers; one call at a time."""

    precision: Bits
    agreement: float | None  # share of evaluation answers equal to fp32's; None for fp32 itself

    def check(self, prompt: str, max_new_tokens: int) -> None:
        """Raises InvalidInputError when the prompt cannot be answered."""
        ...

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]:
        """The greedy continuation of each prompt, in order.

        Raises:
            InvalidInputError: a prompt cannot be answered; none is.
        """
        ...
