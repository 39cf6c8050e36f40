"""Quality matrices of services that are no language models: the electricity market of New South Wales, 1996 to 1998.

    python -m benchmarks.policy.electricity elec2.csv.xz FOLDER
    python -m benchmarks.policy.decision --per-family 0 --matrices FOLDER

The stream (Harries 1999) has 45,312 half-hours with whether the price is above its mean of the last day. It is cut
into stretches; at each step of one, of half a day or a day, a small classifier is fitted to the two weeks before and
scored on every later step of the stretch, as `opportune trace build` does with questions. The world moves to and fro
from day to day, and a step's quality is a mean over 24 or 48 half-hours: another kind of drift than any generator's.
Load and prices are constants.
"""

from __future__ import annotations

import argparse
import csv
import lzma
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from policy.history import Floats
from policy.training.simulator.trace import Floats32, Trace
from shared.errors import InvalidInputError, OpportuneError

#: half-hours a model is fitted to
DATA: Final = 14 * 48
STEPS: Final = 150  # of a stretch
PER_STEP: Final = (24, 48)  # half-hours
#: what is fitted; scikit-learn's defaults but for what keeps a model small
MODELS: Final[dict[str, Callable[[], Any]]] = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "tree": lambda: DecisionTreeClassifier(min_samples_leaf=5, random_state=0),
    "forest": lambda: RandomForestClassifier(30, min_samples_leaf=3, random_state=0),
}


def stream(file: Path) -> tuple[Floats, NDArray[np.bool_]]:
    """What is known of each half-hour, (N, 6), and whether the price was high, (N,).

    Raises:
        InvalidInputError: not the file.
    """
    try:
        with lzma.open(file, "rt") if file.suffix == ".xz" else file.open() as lines:
            header, *rows = csv.reader(lines)
        values = np.array(rows, dtype=np.float64)
    except (OSError, ValueError, lzma.LZMAError) as error:
        raise InvalidInputError(f"{file}: not a readable .csv or .csv.xz ({error})") from error
    if header[-1:] != ["class"] or values.ndim != 2:
        raise InvalidInputError(f"{file}: the last column must be 'class', and every other a number")
    return values[:, :-1], values[:, -1] > 0.5


def matrix(x: Floats, high: NDArray[np.bool_], per_step: int, fitted: Callable[[], Any]) -> Floats32:
    """Share got right by the model of step i at step j, (T, T), of a stretch that begins with the first model's data.

    Raises:
        InvalidInputError: a model's data are all of one class.
    """
    steps = (len(x) - DATA) // per_step
    quality = np.full((steps, steps), np.nan, dtype=np.float32)
    for i in range(steps):
        until = DATA + i * per_step  # the data end where step i begins, so that its questions are new to every model
        known = slice(until - DATA, until)
        if len(np.unique(high[known])) < 2:
            raise InvalidInputError(f"the half-hours {known.start} to {known.stop} of a stretch are of one class")
        right = fitted().fit(x[known], high[known]).predict(x[until:]) == high[until:]
        quality[i, i:] = right[: (steps - i) * per_step].reshape(steps - i, per_step).mean(axis=1)
    return quality


def traces(x: Floats, high: NDArray[np.bool_], models: Sequence[str] = tuple(MODELS)) -> Iterator[Trace]:
    """Every stretch with every one of `models`, one after another."""
    for per_step in PER_STEP:
        length = STEPS * per_step
        for number in range((len(x) - DATA) // length):
            stretch = slice(number * length, (number + 1) * length + DATA)
            for name in models:
                quality = matrix(x[stretch], high[stretch], per_step, MODELS[name])
                flat = np.ones(len(quality), dtype=np.float32)
                yield Trace(
                    bleu=quality,
                    accuracy=quality.copy(),
                    request_rate_rps=50.0 * flat,
                    latency_s=0.1 * flat,
                    cpu=0.5 * flat,
                    memory=0.5 * flat,
                    price_usd_per_hour=np.ones((len(quality), 2), dtype=np.float32),
                    train_hours=np.full(2, 0.5 * per_step - 1e-4, dtype=np.float32),  # one step
                    step_minutes=30.0 * per_step,
                    value_usd_per_quality_hour=1.0,
                    name=f"electricity-{per_step}-{number:02d}-{name}",
                )


def main() -> None:
    """Build and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    x, high = stream(args.file)
    args.folder.mkdir(parents=True, exist_ok=True)
    for trace in traces(x, high):
        trace.save(args.folder / f"{trace.name}.npz")
        print(trace.name, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except OpportuneError as error:
        sys.exit(f"electricity: {error}")
