"""Speculative decoding engine: fp32 answers to a lone request, drafted in 8 bits.

One token after the other, a lone fp32 answer reads every weight for every token: memory decides how long it takes.
Here the 8-bit engine, which reads a quarter, writes ahead, and one fp32 pass over all its words says how many were
right. Every returned token is fp32's own choice, so a wrong draft costs time, never an answer. (Speculative decoding,
Leviathan et al. 2023, with the model's own 8-bit copy as the draft model.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from training_containers.model.engines.int8 import Int8Engine
from training_containers.model.engines.onnx_gpt2 import OnnxEngine

_SHORTEST: Final = 2
_LONGEST: Final = 32


class SpeculativeEngine(OnnxEngine):
    """The fp32 engine; requests that come together are answered as before, since batching saves the same reading."""

    def __init__(self, model_dir: Path, threads: int = 0) -> None:
        """Load both engines of `model_dir`.

        Raises:
            ModelError: it lacks one, or is not a complete GPT-2 model.
        """
        super().__init__(model_dir, threads)
        self._draft = Int8Engine(model_dir, threads)
        self._draft.multiple = 1  # a draft may be another than in a batch
        self._ahead = _LONGEST  # tokens drafted at once; follows what the drafts are worth

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """As `OnnxEngine.generate_ids`."""
        if len(rows) != 1:
            return super().generate_ids(rows, limits)
        (prompt,), (limit,) = rows, limits
        text, answer, cached = list(prompt), list[int](), 0
        cache = self.new_cache(1, len(prompt) + limit)
        while not self.done(answer, limit):
            # of the last word only fp32's choice is needed
            count = min(self._ahead, limit - len(answer) - 1)
            drafted = self._draft.generate_ids([text], [count])[0] if count else []
            words = text[cached:] + drafted
            end = cached + len(words)
            known = np.arange(len(text) - cached - 1, len(words))  # the places after which a word is wanted
            ids, positions = np.array([words], np.int64), np.arange(cached, end)[None]
            checked = self.step(ids, positions, np.array([end]), cache, known).tolist()
            right = 0
            while right < len(drafted) and drafted[right] == checked[right]:
                right += 1
            self._ahead = min(_LONGEST, max(_SHORTEST, 2 * right))
            cached = len(text) + right  # what wrong drafts left in the cache is overwritten
            for token in checked[: right + 1]:
                if not self.done(answer, limit):
                    answer.append(token)
                    text.append(token)
        return [answer]
