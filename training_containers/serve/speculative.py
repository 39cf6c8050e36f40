"""fp32 answers to a lone request, drafted in 8 bits.

One token after the other, a lone fp32 answer reads every weight for every token: memory decides how long it takes.
Here the 8-bit engine, which reads a quarter, writes ahead, and one fp32 pass over all its words says how many were
right. Every returned token is fp32's own choice, so a wrong draft costs time, never an answer. (Speculative decoding,
Leviathan et al. 2023, with the model's own 8-bit copy as the draft model.)

Both engines share one cache: what the draft leaves there is overwritten by the fp32 pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_containers.serve.engine import OnnxEngine

_SHORTEST: Final = 2
_LONGEST: Final = 16


class SpeculativeEngine(OnnxEngine):
    """The fp32 engine; requests that come together are answered as before, since batching saves the same reading."""

    def __init__(self, model_dir: Path, threads: int = 0) -> None:
        """Load both engines of `model_dir`.

        Raises:
            ModelError: it lacks one, or is not a complete GPT-2 model.
        """
        super().__init__(model_dir, threads)
        self._draft = OnnxEngine(model_dir, threads, precision="int8")
        self._ahead = _LONGEST  # tokens one fp32 pass looks at; follows what the drafts are worth

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """As `OnnxEngine.generate_ids`."""
        if len(rows) != 1:
            return super().generate_ids(rows, limits)
        (prompt,), (limit,) = rows, limits
        cache = self.new_cache(1, len(prompt) + limit)
        ids = np.array([prompt], np.int64)
        first = self.step(ids, np.arange(len(prompt))[None], np.array([len(prompt)]), cache)
        answer = first.tolist()
        while not self.done(answer, limit):
            cached = len(prompt) + len(answer) - 1  # all but the last token
            words = self._write_ahead(answer[-1], cached, min(self._ahead, limit - len(answer)), cache)
            checked = self._check(words, cached, cache)
            right = 1  # the first word is no draft, so what follows it is right
            while right < len(words) and words[right] == checked[right - 1]:
                right += 1
            self._ahead = min(_LONGEST, max(_SHORTEST, 2 * right))
            for token in checked[:right]:
                if not self.done(answer, limit):
                    answer.append(token)
        return [answer]

    def _write_ahead(self, word: int, cached: int, count: int, cache: list[NDArray[np.float32]]) -> list[int]:
        """`word` and up to count - 1 drafted successors."""
        words = [word]
        while len(words) < count and (len(words) == 1 or words[-1] not in self.config.eos_ids):
            place = cached + len(words) - 1
            ids, positions = np.array([[words[-1]]], np.int64), np.array([[place]], np.int64)
            words += self._draft.step(ids, positions, np.array([place + 1]), cache).tolist()
        return words

    def _check(self, words: list[int], cached: int, cache: list[NDArray[np.float32]]) -> list[int]:
        """fp32's next token after each word, in one pass."""
        count = len(words)
        positions = np.arange(cached, cached + count)[None]
        lengths = np.array([cached + count])
        return self.step(np.array([words], np.int64), positions, lengths, cache, np.arange(count)).tolist()
