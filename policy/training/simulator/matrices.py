"""Real drift traces: train a model at each step of a dated question stream, score it on every later step.

The stream is cut into steps: step 0 holds the `initial` oldest questions, each later step the next `per_step`.
Traffic at step j asks what had appeared by then, a question of age a (in steps) with weight 0.5 ** (a / half_life).
Model i learns a sample of the questions that had appeared by step i, drawn with the same weights. Model 0 is the base
model; the others are fine-tuned from it and are independent of each other, so they can be trained anywhere, in any
order, and a broken build goes on where it stopped: each finished row is a file.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from policy.training.simulator.trace import Trace
from shared.errors import InvalidInputError

Executor = Literal["local", "ray"]
Indices = NDArray[np.int64]
_RECIPE: Final = "recipe.json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a matrix looks like; stored beside the rows, so that none are mixed up."""

    questions_sha256: str
    model: str  # "small", or a folder or hub name of a GPT-2
    steps: int = 32
    initial: int = 240  # questions of step 0, which the base model learns
    per_step: int = 40
    train_pairs: int = 400  # questions a retrain learns at most
    eval_pairs: int = 100  # questions of traffic a step is scored on
    half_life: float = 4.0  # steps after which a question is asked half as often
    epochs: int = 15
    learning_rate: float = 2e-3
    seed: int = 0

    def appeared(self, step: int) -> int:
        """How many questions had appeared by the end of a step."""
        return self.initial + step * self.per_step


@dataclass(frozen=True)
class Task:
    """One model to train and score. Questions are (text, right answers); `traffic[k]` asks at step `step + k`."""

    recipe: Recipe
    step: int
    learn: tuple[tuple[str, tuple[str, ...]], ...]
    ask: tuple[tuple[str, tuple[str, ...]], ...]
    traffic: tuple[tuple[int, ...], ...]  # indices into `ask`
    base: str  # folder of the base model


@dataclass(frozen=True)
class Row:
    """One model's quality at its step and every later one."""

    step: int
    bleu: tuple[float, ...]
    accuracy: tuple[float, ...]
    seconds: float


Question = tuple[str, tuple[str, ...]]


def popularity(recipe: Recipe, step: int) -> NDArray[np.float64]:
    """Share of the traffic of a step that asks each question that had appeared by then."""
    index = np.arange(recipe.appeared(step))
    born = np.maximum(0, (index - recipe.initial) // recipe.per_step + 1)
    weight = 0.5 ** ((step - born) / recipe.half_life)
    return np.asarray(weight / weight.sum())


def training_sample(recipe: Recipe, step: int) -> Indices:
    """What model `step` learns: distinct questions, drawn by popularity."""
    weights = popularity(recipe, step)
    rng = np.random.default_rng([recipe.seed, 1, step])
    count = min(recipe.train_pairs, len(weights))
    return np.sort(rng.choice(len(weights), size=count, replace=False, p=weights))


def traffic_sample(recipe: Recipe, step: int) -> Indices:
    """What is asked at a step, the same for every model."""
    weights = popularity(recipe, step)
    return np.random.default_rng([recipe.seed, 2, step]).choice(len(weights), size=recipe.eval_pairs, p=weights)


def task_for(recipe: Recipe, step: int, questions: Sequence[Question], base: Path) -> Task:
    """The work of one row; step 0 learns nothing, it is the base model."""
    asked = [traffic_sample(recipe, later) for later in range(step, recipe.steps)]
    distinct = np.unique(np.concatenate(asked))
    return Task(
        recipe=recipe,
        step=step,
        learn=tuple(questions[i] for i in training_sample(recipe, step)) if step else (),
        ask=tuple(questions[i] for i in distinct),
        traffic=tuple(tuple(int(i) for i in np.searchsorted(distinct, sample)) for sample in asked),
        base=str(base),
    )


def build(
    recipe: Recipe,
    questions: Sequence[Question],
    folder: Path,
    make_base: Callable[[Recipe, Sequence[Question], Path], None],
    run_task: Callable[[Task], Row],
    executor: Executor = "local",
    workers: int = 1,
    progress: Callable[[int, int, float], None] = lambda done, of, seconds_left: None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(bleu, accuracy), each (T, T). Finished rows in `folder` are kept and not computed again.

    `make_base(recipe, its questions, folder)` trains the base model, `run_task` trains and scores one model; both
    must be importable functions, as they run in other processes.

    Raises:
        InvalidInputError: too few questions, the folder holds another recipe's rows, or ray is not installed.
    """
    needed = recipe.appeared(recipe.steps - 1)
    if len(questions) < needed:
        raise InvalidInputError(
            f"{len(questions)} questions are too few: {recipe.initial} first and {recipe.per_step} for each of "
            f"{recipe.steps - 1} steps make {needed}; lower --steps, --initial or --per-step"
        )
    _claim(folder, recipe)
    base = folder / "base"
    if not (base / "manifest.json").is_file():
        make_base(recipe, questions[: recipe.initial], base)
    missing = [step for step in range(recipe.steps) if not _row_file(folder, step).is_file()]
    tasks = (task_for(recipe, step, questions, base) for step in missing)
    begin = time.monotonic()
    for done, row in enumerate(_run(tasks, len(missing), run_task, executor, workers), start=1):
        _write(_row_file(folder, row.step), json.dumps(dataclasses.asdict(row)))
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        progress(recipe.steps - len(missing) + done, recipe.steps, left)
    return _assemble(folder, recipe.steps)


def as_trace(
    bleu: NDArray[np.float32],
    accuracy: NDArray[np.float32],
    *,
    step_minutes: float,
    value_usd_per_quality_hour: float,
    price_usd_per_hour: tuple[float, float],
    train_hours: tuple[float, float],
    name: str,
) -> Trace:
    """The measured matrices as a drift trace. Load and prices are not measured here: they are constant."""
    steps = len(bleu)

    def constant(value: float) -> NDArray[np.float32]:
        return np.full(steps, value, dtype=np.float32)

    return Trace(
        bleu=bleu,
        accuracy=accuracy,
        request_rate_rps=constant(50.0),
        latency_s=constant(0.1),
        cpu=constant(0.6),
        memory=constant(0.5),
        price_usd_per_hour=np.tile(np.array(price_usd_per_hour, dtype=np.float32), (steps, 1)),
        train_hours=np.array(train_hours, dtype=np.float32),
        step_minutes=step_minutes,
        value_usd_per_quality_hour=value_usd_per_quality_hour,
        noise_sd=0.0,  # the matrix already holds the noise of a finite sample
        name=name,
    )


def _claim(folder: Path, recipe: Recipe) -> None:
    """Make the folder this recipe's."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _RECIPE
    wanted: dict[str, Any] = dataclasses.asdict(recipe)
    if file.is_file():
        found = json.loads(file.read_text())
        if found != wanted:
            differing = ", ".join(sorted(key for key in wanted if found.get(key) != wanted[key]))
            raise InvalidInputError(
                f"{folder} holds rows of another build ({differing} differ); remove it to start over"
            )
    else:
        _write(file, json.dumps(wanted, indent=1))


def _row_file(folder: Path, step: int) -> Path:
    return folder / f"row-{step:03d}.json"


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)


def _run(
    tasks: Iterable[Task], count: int, run_task: Callable[[Task], Row], executor: Executor, workers: int
) -> Iterator[Row]:
    """Rows as they finish."""
    if executor == "ray":
        yield from _run_on_ray(tasks, run_task)
    elif workers <= 1 or count <= 1:
        yield from map(run_task, tasks)
    else:
        # spawned, not forked: torch's threads do not survive a fork
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for job in as_completed([pool.submit(run_task, task) for task in tasks]):
                yield job.result()


def _run_on_ray(tasks: Iterable[Task], run_task: Callable[[Task], Row]) -> Iterator[Row]:
    try:
        import ray
    except ImportError as exc:
        raise InvalidInputError(
            "--executor ray needs the ray package: pip install ray, or use --executor local"
        ) from exc
    remote = ray.remote(run_task)
    waiting = [remote.remote(task) for task in tasks]
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield from ray.get(ready)


def _assemble(folder: Path, steps: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    bleu = np.full((steps, steps), np.nan, dtype=np.float32)
    accuracy = bleu.copy()
    for step in range(steps):
        row = json.loads(_row_file(folder, step).read_text())
        bleu[step, step:] = row["bleu"]
        accuracy[step, step:] = row["accuracy"]
    return bleu, accuracy
