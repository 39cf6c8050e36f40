"""Live answer quality: a rolling window of labelled answers per model version."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

from shared.ports import Clock


class Totals(NamedTuple):
    """Sums over one version's window; sums, so that several processes' windows add up."""

    pairs: int
    bleu1_sum: float
    exact_match_sum: float

    def plus(self, other: Totals) -> Totals:
        """Both windows together."""
        return Totals(
            self.pairs + other.pairs,
            self.bleu1_sum + other.bleu1_sum,
            self.exact_match_sum + other.exact_match_sum,
        )


class RollingScores:
    """The last `max_pairs` scores of each version, none older than `max_age_s`.

    A version without a recent pair has no entry: its quality is unknown, not zero.
    """

    def __init__(self, max_pairs: int, max_age_s: float, clock: Clock = time.time) -> None:
        self._max_pairs = max_pairs
        self._max_age_s = max_age_s
        self._clock = clock
        self._windows: dict[str, deque[tuple[float, float, float]]] = {}
        self._lock = threading.Lock()

    def add(self, version: str, bleu1: float, exact_match: float) -> None:
        """Count one labelled answer of `version`."""
        with self._lock:
            window = self._windows.setdefault(version, deque(maxlen=self._max_pairs))
            window.append((self._clock(), bleu1, exact_match))

    def forget(self, version: str) -> None:
        """Drop a version's window: it does not serve any more, or starts afresh."""
        with self._lock:
            self._windows.pop(version, None)

    def totals(self) -> dict[str, Totals]:
        """Version -> sums over its window; versions without recent pairs are absent."""
        oldest = self._clock() - self._max_age_s
        with self._lock:
            for window in self._windows.values():
                while window and window[0][0] < oldest:
                    window.popleft()
            return {
                version: Totals(len(window), sum(s[1] for s in window), sum(s[2] for s in window))
                for version, window in self._windows.items()
                if window
            }
