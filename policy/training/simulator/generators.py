"""Randomised drift traces: ten families to train on, two more that are made otherwise (`APART`), and two (`HELD_OUT`)
that training never sees.

Every trace is built from the same few parts, drawn afresh:

    q[i, j] = level_i + luck_i + wobble_j - depth * (1 - exp(-distance(i, j)))

The level is one for all models, or fades with time; `luck` is what a model is worth by chance of its training, `wobble`
what the questions of a time are worth by chance. The world is a point that moves in a space of several dimensions, and
a family is a way to move. What a model knows is the mean of the points of its data, those of the last few steps: so a
model trained soon after a change has learnt it in part. The distance is from there to the world at step j.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from policy.training.simulator.trace import Floats, Trace
from shared.errors import InvalidInputError

MIN_STEPS: Final = 120
MAX_STEPS: Final = 240
STEP_MINUTES: Final = 10.0
VALUE_USD: Final = 6.0
#: from, and below: in how many ways a world can change, and of how many steps the data of a model are
DIMENSIONS: Final = (2, 13)
WINDOW_STEPS: Final = (1, 13)
#: how much of what questions are worth by chance stays from step to step
WOBBLE_MEMORY: Final = 0.8


@dataclass(frozen=True, slots=True)
class Spread:
    """How much services differ in everything but how they drift: (low, high) of uniform or log-uniform draws."""

    cost_usd: tuple[float, float] = (0.5, 100.0)  # of one retrain, log-uniform
    longest_steps: int = 6  # a retrain takes 1 to this many steps, on each cloud for itself
    alike: bool = False  # or, log-uniform, about as many on both
    level: tuple[float, float] = (0.78, 0.95)  # quality of a fresh model
    depth: tuple[float, float] = (0.3, 0.7)  # what a model loses in a world that it knows nothing of
    noise_sd: tuple[float, float] = (0.01, 0.05)
    speed: tuple[float, float] | None = None  # the world moves faster by this factor, log-uniform; None: as it is
    steps: tuple[int, int] = (MIN_STEPS, MAX_STEPS)
    luck_sd: tuple[float, float] = (0.004, 0.028)  # how much models differ by chance, log-uniform
    fade: float = 0.0  # up to this share of the level gets out of reach, as there is more and more to know


#: like the traces that policies are judged on
USUAL: Final = Spread()
#: everything that may be met in life
WIDE: Final = Spread(
    cost_usd=(0.2, 200.0),
    longest_steps=16,
    alike=True,
    level=(0.4, 0.95),
    depth=(0.3, 1.0),
    noise_sd=(0.0, 0.08),
    speed=(0.5, 30.0),
    steps=(24, MAX_STEPS),
)
#: a small model that answers a stream of questions: a short life, models that differ and know less and less
SHORT: Final = Spread(
    cost_usd=(0.2, 12.0),
    longest_steps=4,
    level=(0.6, 1.0),
    depth=(0.5, 1.0),
    noise_sd=(0.0, 0.08),
    steps=(24, 96),
    luck_sd=(0.01, 0.08),
    fade=0.5,
)
#: drift as in a textbook, at any speed and price, measured well or badly
CLEAN: Final = Spread(
    cost_usd=(0.2, 30.0),
    longest_steps=16,
    alike=True,
    level=(0.5, 1.0),
    depth=(0.4, 1.0),
    noise_sd=(0.0, 0.04),
    steps=(24, MAX_STEPS),
    luck_sd=(0.0005, 0.02),
)
#: retrains that are cheap beside what they bring, as on one small GPU instance
CHEAP: Final = Spread(cost_usd=(0.5, 8.0), longest_steps=16)


def distances(position: Floats, window: int) -> Floats:
    """How far what model i knows, the mean of the last `window` points, is from the world at step j, (T, T).

    `position` is (T, dimensions); the world stood still before it.
    """
    before = np.concatenate([np.repeat(position[:1], window, axis=0), position])
    sums = np.cumsum(before, axis=0)
    known = (sums[window:] - sums[:-window]) / window
    return np.asarray(np.linalg.norm(known[:, None] - position[None, :], axis=2))


def _direction(rng: np.random.Generator, dimensions: int) -> Floats:
    """A direction of unit length, (dimensions,)."""
    drawn = rng.normal(0.0, 1.0, dimensions)
    return np.asarray(drawn / np.linalg.norm(drawn))


def _walk(rng: np.random.Generator, steps: int, dimensions: int, pace: float) -> Floats:
    """A random walk of steps about `pace` long."""
    return np.cumsum(rng.normal(0.0, pace / np.sqrt(dimensions), (steps, dimensions)), axis=0)


def _autoregressive(start: Floats | float, shocks: Floats, memory: Floats | float) -> Floats:
    """x[t] = memory * x[t - 1] + shocks[t], from x[0] = start; of the shape of `shocks`."""
    path = np.empty_like(shocks)
    path[0] = start
    for t in range(1, len(path)):
        path[t] = memory * path[t - 1] + shocks[t]
    return path


def _change_points(rng: np.random.Generator, steps: int) -> list[int]:
    """One or more steps at which the world jumps, at any distance from each other."""
    expected = steps * float(np.exp(rng.uniform(np.log(0.006), np.log(0.05))))
    return sorted({int(p) for p in rng.integers(1, steps, max(1, int(rng.poisson(expected))))})


def _severity(rng: np.random.Generator) -> float:
    """How much of what a model knew one sudden change takes away, as a distance."""
    return float(-np.log1p(-rng.uniform(0.15, 0.85)))


def stable(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Hardly anything moves."""
    return _walk(rng, steps, dimensions, rng.uniform(0.0, 0.0015))


def gradual(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """The world moves at a steady pace."""
    pace = float(np.exp(rng.uniform(np.log(0.0008), np.log(0.012))))
    return pace * np.arange(steps)[:, None] * _direction(rng, dimensions)


def sudden(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Jumps to somewhere else."""
    position = np.zeros((steps, dimensions))
    for point in _change_points(rng, steps):
        position[point:] += _severity(rng) * _direction(rng, dimensions)
    return position


def recurring(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Two to four regimes come and go; a model of a regime is good again when the regime is back."""
    regimes = int(rng.integers(2, 5))
    places = np.stack([rng.uniform(0.25, 1.3) * _direction(rng, dimensions) for _ in range(regimes)])
    dwell = rng.uniform(12.0, 80.0)
    regime = np.empty(steps, dtype=np.int64)
    t, current = 0, 0
    while t < steps:
        length = (
            max(2, int(rng.exponential(dwell))) if rng.random() < 0.5 else max(2, int(dwell * rng.uniform(0.7, 1.3)))
        )
        if t == 0:  # the trace begins somewhere in a spell
            length = int(rng.integers(1, length + 1))
        regime[t : t + length] = current
        t += length
        current = int((current + rng.integers(1, regimes)) % regimes)
    return np.asarray(places[regime])


def random_walk(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """The world wanders, and the fewer ways there are, the more often it comes back."""
    return _walk(rng, steps, dimensions, float(np.exp(rng.uniform(np.log(0.008), np.log(0.06)))))


def reverting(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """The world is pushed away and swings back by itself, smoothly or not; retraining chases it."""
    pull = 1.0 / rng.uniform(3.0, 40.0)
    inertia = rng.uniform(0.0, 0.95)
    reach = rng.uniform(0.05, 0.6)
    position, speed = np.zeros(steps), 0.0
    for t in range(1, steps):
        speed = inertia * speed + float(rng.normal()) - pull * position[t - 1]
        position[t] = position[t - 1] + speed
    return position[:, None] * reach / max(float(position.std()), 1e-9) * _direction(rng, dimensions)


def accelerating(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Slow at first, then faster and faster."""
    share = np.arange(steps) / steps
    way = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))) * share ** rng.uniform(1.6, 3.2)
    return way[:, None] * _direction(rng, dimensions)


def mixture(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Two or three of the others at once, most often a steady change with jumps in it."""
    steady = (gradual, accelerating, random_walk)[int(rng.integers(3))]
    abrupt = recurring if rng.random() < 0.25 else sudden
    third = (gradual, sudden, recurring, random_walk, accelerating)[int(rng.integers(5))]
    parts = [steady, abrupt, third] if rng.random() < 0.3 else [steady, abrupt]
    return np.asarray(rng.uniform(0.5, 1.0) * np.sum([part(rng, steps, dimensions) for part in parts], axis=0))


def seasonal(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """The world goes round, on a line or a more or less flat ellipse; what a model forgets it is worth again later."""
    period = rng.uniform(18.0, 90.0)
    angle = 2.0 * np.pi * (np.arange(steps) / period + rng.random())
    round_, reach = rng.uniform(0.0, 1.0), rng.uniform(0.1, 0.6)
    position = np.zeros((steps, dimensions))
    position[:, 0], position[:, 1] = reach * np.sin(angle), reach * round_ * np.cos(angle)
    return position


def transient(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Short spells of something else that pass by themselves; retraining chases them."""
    position = np.arange(steps)[:, None] * float(rng.uniform(0.0, 0.002)) * _direction(rng, dimensions)
    end = 0
    for point in sorted(int(p) for p in rng.integers(1, steps, rng.integers(2, 8))):
        if point >= end:
            length = int(rng.integers(4, 13))
            position[point : point + length] += _severity(rng) * _direction(rng, dimensions)
            end = point + length + 1
    return position


def turnover(rng: np.random.Generator, steps: int) -> Floats:
    """Questions appear at an uneven pace and are asked less and less; a model knows those from before its training.

    Distances, (T, T): there is no place where the world is.
    """
    half_life = float(np.exp(rng.uniform(np.log(2.0), np.log(30.0))))
    born = np.exp(rng.normal(0.0, rng.uniform(0.0, 0.8), steps))
    born[0] = rng.uniform(1.0, 12.0)
    age = np.arange(steps)[None, :] - np.arange(steps)[:, None]  # of the questions of one step at another
    asked = np.where(age >= 0, born[:, None] * 0.5 ** (np.maximum(age, 0) / half_life), 0.0)
    known = np.cumsum(asked, axis=0) / asked.sum(axis=0)[None, :]  # share of step j's traffic from before step i + 1
    later = np.tri(steps, k=-1, dtype=bool)
    return np.asarray(-np.log(np.where(later, 1.0, np.maximum(known, 1e-9))))


def textbook(rng: np.random.Generator, steps: int) -> Floats:
    """What a model loses grows with its age, or with the way of a world that never turns back, until nothing is left.

    Evenly, faster or slower with time, or in equal jumps. Distances, (T, T), with a loss in proportion.
    """
    span = float(np.exp(rng.uniform(np.log(0.15), np.log(6.0))))  # what would be lost from the first to the last step
    power = float(np.exp(rng.uniform(np.log(0.4), np.log(2.5)))) if rng.random() < 0.5 else 1.0
    share = np.arange(steps) / steps
    if rng.random() < 0.4:
        age = np.abs(share[None, :] - share[:, None])
        lost = span * age**power
    else:
        way = span * share**power
        if rng.random() < 0.35:
            jumps = int(rng.integers(2, 16))
            way = span * np.floor(share * jumps + rng.random()) / jumps
        lost = distances(way[:, None], int(rng.integers(1, 5)))
    return np.asarray(-np.log(np.maximum(1.0 - lost, 1e-9)))


def halting(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """The world moves at a steady pace, rests, and moves on, in spells of any length. Held out of training."""
    pace = float(np.exp(rng.uniform(np.log(0.004), np.log(0.03))))
    spell = rng.uniform(10.0, 60.0)
    moving = np.zeros(steps)
    t, moves = 0, bool(rng.random() < 0.5)
    while t < steps:
        length = max(3, int(rng.exponential(spell)))
        moving[t : t + length] = moves
        t, moves = t + length, not moves
    return pace * np.cumsum(moving)[:, None] * _direction(rng, dimensions)


def slowing(rng: np.random.Generator, steps: int, dimensions: int) -> Floats:
    """Fast at first, then slower and slower. Held out of training."""
    share = np.arange(steps) / steps
    way = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))) * share ** rng.uniform(0.25, 0.6)
    return way[:, None] * _direction(rng, dimensions)


#: random numbers, steps and dimensions -> where the world is, (steps, dimensions)
Movement = Callable[[np.random.Generator, int, int], Floats]
#: family -> how its world moves; policies train on these
FAMILIES: Final[dict[str, Movement]] = {
    "stable": stable,
    "gradual": gradual,
    "sudden": sudden,
    "recurring": recurring,
    "randwalk": random_walk,
    "accel": accelerating,
    "mixture": mixture,
    "reverting": reverting,
    "seasonal": seasonal,
    "transient": transient,
}
#: how far what model i knows is from the world at step j, (T, T), of random numbers and steps
Distances = Callable[[np.random.Generator, int], Floats]
#: families without a place where the world is, each with a spread of its own; policies train on these too
APART: Final[dict[str, tuple[Distances, Spread]]] = {
    "turnover": (turnover, SHORT),  # shaped after the real matrices
    "textbook": (textbook, CLEAN),
}
#: families that no policy is trained or tuned on
HELD_OUT: Final[dict[str, Movement]] = {
    "halting": halting,
    "slowing": slowing,
}


def _load(rng: np.random.Generator, steps: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Request rate with a daily wave, and the latency, CPU and memory that follow from it."""
    wave = np.sin(
        2.0 * np.pi * (np.arange(steps) * STEP_MINUTES / (60.0 * 24.0) * rng.uniform(3.0, 10.0) + rng.random())
    )
    rate = np.maximum(50.0 + 20.0 * wave + rng.normal(0.0, 5.0, steps), 1.0)
    cpu = np.clip(0.012 * rate + rng.normal(0.0, 0.1, steps), 0.01, 1.0)
    latency = np.maximum(0.05 + 0.001 * rate + rng.normal(0.0, 0.01, steps), 0.01)
    memory = np.clip(0.5 + rng.normal(0.0, 0.05, steps), 0.05, 1.0)
    return rate, latency, cpu, memory


def _prices(rng: np.random.Generator, steps: int, spread: Spread) -> tuple[Floats, Floats]:
    """(T, 2) prices that revert to a mean, and the hours one retrain takes on each cloud."""
    if spread.alike:
        taken = np.exp(rng.uniform(0.0, np.log(spread.longest_steps))) * rng.uniform(0.8, 1.25, 2)
        delays = np.clip(np.round(taken), 1, spread.longest_steps)
    else:
        delays = rng.integers(1, spread.longest_steps + 1, 2)
    # a hair less than whole steps: rounding must not add one
    hours = delays / 6.0 - 1e-7
    cost = np.exp(rng.uniform(*np.log(spread.cost_usd))) * rng.uniform(0.8, 1.2, 2)
    memory, shock = rng.uniform(0.75, 0.95, 2), rng.uniform(0.06, 0.18, 2)
    path = _autoregressive(rng.normal(0.0, 0.15, 2), rng.normal(0.0, 1.0, (steps, 2)) * shock, memory)
    return cost / hours * np.exp(path), hours


def _flicker(rng: np.random.Generator, shape: tuple[int, int], reach: float) -> Floats:
    """Where the world of each step is beside its path, (T, dimensions): it comes and goes, fast or slowly."""
    memory = rng.uniform(0.0, 0.95)
    shocks = rng.normal(0.0, reach * np.sqrt((1.0 - memory**2) / shape[1]), shape)
    return _autoregressive(rng.normal(0.0, reach / np.sqrt(shape[1]), shape[1]), shocks, memory)


def generate(family: str, seed: int, steps: int | None = None, spread: Spread = USUAL, flicker: float = 0.0) -> Trace:
    """One random trace of a family; the same seed gives the same trace. Those of `APART` have their own spread.

    `flicker` is the distance by which the world of a step is beside its path, except in `APART`; no policy is trained
    on it.

    Raises:
        InvalidInputError: no such family.
    """
    movements = {**FAMILIES, **HELD_OUT}
    names = [*movements, *APART]
    if family not in names:
        raise InvalidInputError(f"no drift family {family!r}; choose from: {', '.join(names)}")
    if family in APART:
        spread = APART[family][1]
    rng = np.random.default_rng([seed, names.index(family)])
    length = steps or int(rng.integers(spread.steps[0], spread.steps[1] + 1))
    if family in APART:
        distance = APART[family][0](rng, length)
    else:
        position = movements[family](rng, length, int(rng.integers(*DIMENSIONS)))
        if flicker:
            position = position + _flicker(rng, position.shape, flicker)
        # a regime is learnt at once
        distance = distances(position, 1 if family == "recurring" else int(rng.integers(*WINDOW_STEPS)))
    speed = float(np.exp(rng.uniform(*np.log(spread.speed)))) if spread.speed else 1.0
    loss = rng.uniform(*spread.depth) * -np.expm1(-speed * distance)
    luck = rng.normal(0.0, np.exp(rng.uniform(*np.log(spread.luck_sd))), length)
    wobble = _autoregressive(0.0, rng.normal(0.0, rng.uniform(0.001, 0.005), length), WOBBLE_MEMORY)
    level = np.full(length, rng.uniform(*spread.level))
    if spread.fade:
        level *= 1.0 + rng.uniform(0.0, spread.fade) * np.expm1(-np.arange(length) / rng.uniform(4.0, 40.0))
    quality = np.clip(level[:, None] + luck[:, None] + wobble[None, :] - loss, 0.02, 0.99)
    quality[np.tril_indices(length, -1)] = np.nan
    rate, latency, cpu, memory = _load(rng, length)
    prices, hours = _prices(rng, length, spread)
    exact = quality.astype(np.float32)
    return Trace(
        bleu=exact,
        accuracy=exact.copy(),
        request_rate_rps=rate.astype(np.float32),
        latency_s=latency.astype(np.float32),
        cpu=cpu.astype(np.float32),
        memory=memory.astype(np.float32),
        price_usd_per_hour=prices.astype(np.float32),
        train_hours=hours.astype(np.float32),
        step_minutes=STEP_MINUTES,
        value_usd_per_quality_hour=VALUE_USD,
        noise_sd=float(rng.uniform(*spread.noise_sd)),
        name=f"{family}-{seed:03d}",
    )


def held_out_set(per_family: int = 40, seed: int = 900_000) -> list[Trace]:
    """The project's own test set: `per_family` traces of each family, from seeds training never uses."""
    return [generate(family, seed + k) for family in (*FAMILIES, *HELD_OUT) for k in range(per_family)]
