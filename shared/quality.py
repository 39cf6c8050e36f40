"""Quality of an answer, a model or a service: half BLEU-1, half exact match, from 0 to 1.

`quality` is this mix everywhere in the code; `accuracy` is exact match alone, but for the entry "accuracy" of the
source paper's observation, which is this mix (`policy.observation.paper`).
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

#: a float, or a numpy array of any shape
T = TypeVar("T")


def quality(bleu: T, accuracy: T) -> T:
    """0.5 BLEU-1 + 0.5 exact match, of two numbers or element by element of two arrays; missing (NaN) stays missing."""
    return cast(T, 0.5 * cast(Any, bleu) + 0.5 * cast(Any, accuracy))
