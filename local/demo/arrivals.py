"""Real arrival times, read from a CSV of time stamps and fitted to what one machine serves."""

from __future__ import annotations

import csv
import datetime as dt
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class ArrivalTrace:
    """Arrival times in seconds since the first one, ascending."""

    name: str
    times_s: NDArray[np.float64]

    def fitted(self, rng: np.random.Generator, length_s: float, rate_per_s: float) -> tuple[NDArray[np.float64], str]:
        """Arrival times in [0, length_s) with at most `rate_per_s` on average, and the scaling in words.

        A trace shorter than the run is stretched, a longer one is cut. Arrivals are dropped at random, each with the
        same probability, so that bursts stay bursts.
        """
        span_s = float(self.times_s[-1])
        stretch = max(1.0, length_s / span_s)
        times = self.times_s * stretch
        times = times[times < length_s]
        keep = min(1.0, rate_per_s * length_s / len(times))
        kept = times[rng.random(len(times)) < keep]
        note = (
            f"arrivals: {self.name}, {len(self.times_s):,} over {span_s / 60:.1f} min, "
            f"{f'stretched x{stretch:.2f}' if stretch > 1 else f'cut to {length_s / 60:.0f} min'}, "
            f"{f'thinned to {keep:.2%}' if keep < 1 else 'none dropped'} ({len(kept):,} requests)"
        )
        return kept, note


def read_arrivals(path: Path) -> ArrivalTrace:
    """Read the first column of a CSV (plain or .xz): ISO dates or seconds, one arrival a line, a header is allowed.

    Raises:
        InvalidInputError: unreadable or empty, or a line does not parse; names the file and the line.
    """
    seconds: list[float] = []
    try:
        for number, cell in _first_column(path):
            value = _seconds(cell)
            if value is None:
                if number == 1:
                    continue
                raise InvalidInputError(f"{path}, line {number}: {cell!r} is not a time stamp")
            seconds.append(value)
    except (OSError, EOFError) as exc:
        raise InvalidInputError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    except lzma.LZMAError as exc:
        raise InvalidInputError(f"cannot read {path}: not an xz file: {exc}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInputError(f"cannot read {path}: not a CSV text file: {exc}") from exc
    times = np.sort(np.asarray(seconds, dtype=np.float64))
    if len(times) < 2 or times[-1] <= times[0]:
        raise InvalidInputError(f"{path} holds {len(times)} arrivals; at least two at different times are needed")
    return ArrivalTrace(path.name, times - times[0])


def _first_column(path: Path) -> Iterator[tuple[int, str]]:
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        for row in reader:
            if row and row[0].strip():
                yield reader.line_num, row[0].strip()


def _seconds(cell: str) -> float | None:
    """POSIX seconds of an ISO date (any number of fractional digits) or of a finite number; None when it is neither."""
    try:
        value = float(cell)
    except ValueError:
        pass
    else:
        return value if np.isfinite(value) else None
    head, dot, tail = cell.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    zone = tail[len(digits) :]
    try:
        moment = dt.datetime.fromisoformat(f"{head}{dot}{digits[:6].ljust(6, '0') if dot else ''}{zone}")
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()
