"""Randomised drift traces: ten families to train on, one shaped after what was measured (`LIKE_REAL`), two (`HELD_OUT`)
that training never sees.

Every trace is built from the same few parts, drawn afresh:

    q[i, j] = level_i + luck_i + wobble_j - depth * (1 - exp(-distance(i, j)))

The level is one for all models, or fades with time; `luck` is what a model is worth by chance of its training, `wobble`
what a step's questions are worth by chance, and the distance is how far the world moved between the data of model i and
step j. A family is a way to move the world.
After a sudden change the data needed to recover accumulates: a model trained during that ramp is a mixture of what
the last model before the change knew and what there is to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from policy.training.trace import Floats, Trace
from shared.errors import InvalidInputError

MIN_STEPS: Final = 120
MAX_STEPS: Final = 240
STEP_MINUTES: Final = 10.0
VALUE_USD: Final = 6.0


@dataclass(frozen=True, slots=True)
class Spread:
    """How much services differ in everything but how they drift: (low, high) of uniform or log-uniform draws."""

    cost_usd: tuple[float, float] = (0.5, 100.0)  # of one retrain, log-uniform
    longest_steps: int = 6  # a retrain takes 1 to this many steps
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
#: retrains that are cheap beside what they bring, as on one small GPU instance
CHEAP: Final = Spread(cost_usd=(0.5, 8.0), longest_steps=16)


@dataclass(frozen=True)
class World:
    """How the world moved: `distance[i, j]` (T, T), and per model the share of the present that its data holds.

    Where `learnt[i] < 1`, model i behaves as `learnt[i]` of model i and `1 - learnt[i]` of model `before[i]`.
    """

    distance: Floats
    learnt: Floats  # (T,)
    before: np.ndarray  # (T,), step index


def _moved(position: Floats) -> World:
    """A world that is a point at each step, (T,) or (T, dimensions); data of the present tell all about it."""
    points = position.reshape(len(position), -1)
    distance = np.linalg.norm(points[:, None] - points[None, :], axis=2)
    return World(distance, np.ones(len(points)), np.arange(len(points)))


def _dimensions(rng: np.random.Generator) -> int:
    """In how many ways a world can change: with one it comes back by itself, with more it hardly ever does."""
    return int(rng.integers(1, 5))


def _direction(rng: np.random.Generator, dimensions: int) -> Floats:
    """A direction of unit length, (dimensions,)."""
    drawn = rng.normal(0.0, 1.0, dimensions)
    return np.asarray(drawn / np.linalg.norm(drawn))


def _change_points(rng: np.random.Generator, steps: int) -> list[int]:
    """One or more steps at which the world jumps, at any distance from each other."""
    expected = steps * float(np.exp(rng.uniform(np.log(0.006), np.log(0.05))))
    return sorted({int(p) for p in rng.integers(1, steps, max(1, int(rng.poisson(expected))))})


def _ramps(rng: np.random.Generator, steps: int, points: list[int]) -> tuple[Floats, np.ndarray]:
    """Share learnt and the last model before the change, for models trained while data accumulates."""
    learnt, before = np.ones(steps), np.arange(steps)
    length = int(rng.integers(1, 13))  # data come in at the pace of this service
    for index, point in enumerate(points):
        end = min(point + length, steps, points[index + 1] if index + 1 < len(points) else steps)
        for i in range(point, end):
            learnt[i] = (i - point + 1) / (length + 1)
            before[i] = point - 1
    return learnt, before


def _severity(rng: np.random.Generator) -> float:
    """How much of what a model knew one sudden change takes away, as a distance."""
    return float(-np.log1p(-rng.uniform(0.15, 0.85)))


def stable(rng: np.random.Generator, steps: int) -> World:
    """Hardly anything moves."""
    return _moved(np.cumsum(rng.normal(0.0, 1.0, steps)) * rng.uniform(0.0, 0.0015))


def gradual(rng: np.random.Generator, steps: int) -> World:
    """The world moves at a steady pace."""
    pace = float(np.exp(rng.uniform(np.log(0.0008), np.log(0.012))))
    return _moved(pace * np.arange(steps, dtype=np.float64))


def sudden(rng: np.random.Generator, steps: int) -> World:
    """Jumps to somewhere else; data to recover from each accumulates over one to twelve steps."""
    points, dimensions = _change_points(rng, steps), _dimensions(rng)
    position = np.zeros((steps, dimensions))
    for point in points:
        position[point:] += _severity(rng) * _direction(rng, dimensions)
    return World(_moved(position).distance, *_ramps(rng, steps, points))


def recurring(rng: np.random.Generator, steps: int) -> World:
    """Two to four regimes come and go; a model of a regime is good again when the regime is back."""
    regimes = int(rng.integers(2, 5))
    apart = rng.uniform(0.3, 1.8, (regimes, regimes))
    apart = (apart + apart.T) / 2.0
    np.fill_diagonal(apart, 0.0)
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
    return World(apart[regime[:, None], regime[None, :]], np.ones(steps), np.arange(steps))


def random_walk(rng: np.random.Generator, steps: int) -> World:
    """The world wanders, and the fewer ways there are, the more often it comes back."""
    pace, dimensions = float(np.exp(rng.uniform(np.log(0.008), np.log(0.05)))), _dimensions(rng)
    return _moved(np.cumsum(rng.normal(0.0, pace / np.sqrt(dimensions), (steps, dimensions)), axis=0))


def reverting(rng: np.random.Generator, steps: int) -> World:
    """The world is pushed away and swings back by itself, smoothly or not; retraining chases it."""
    pull = 1.0 / rng.uniform(3.0, 40.0)
    inertia = rng.uniform(0.0, 0.95)
    reach = rng.uniform(0.05, 0.6)
    position, speed = np.zeros(steps), 0.0
    for t in range(1, steps):
        speed = inertia * speed + float(rng.normal()) - pull * position[t - 1]
        position[t] = position[t - 1] + speed
    return _moved(position * reach / max(float(position.std()), 1e-9))


def accelerating(rng: np.random.Generator, steps: int) -> World:
    """Slow at first, then faster and faster."""
    share = np.arange(steps) / steps
    return _moved(float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))) * share ** rng.uniform(1.6, 3.2))


def mixture(rng: np.random.Generator, steps: int) -> World:
    """Two or three of the others at once."""
    parts = rng.choice(np.array([0, 1, 2, 3, 4]), rng.integers(2, 4), replace=False)
    worlds = [(gradual, sudden, recurring, random_walk, accelerating)[part](rng, steps) for part in parts]
    ramp = next((world for world in worlds if (world.learnt < 1.0).any()), worlds[0])
    distance = np.sum([world.distance for world in worlds], axis=0)
    return World(distance * rng.uniform(0.5, 1.0), ramp.learnt, ramp.before)


def seasonal(rng: np.random.Generator, steps: int) -> World:
    """The world goes round, on a line or a more or less flat ellipse; what a model forgets it is worth again later."""
    period = rng.uniform(18.0, 90.0)
    angle = 2.0 * np.pi * (np.arange(steps) / period + rng.random())
    round_, reach = rng.uniform(0.0, 1.0), rng.uniform(0.1, 0.6)
    return _moved(reach * np.stack([np.sin(angle), round_ * np.cos(angle)], axis=1))


def transient(rng: np.random.Generator, steps: int) -> World:
    """Short spells of something else that pass by themselves; retraining chases them."""
    dimensions = _dimensions(rng)
    position = np.arange(steps)[:, None] * float(rng.uniform(0.0, 0.002)) * _direction(rng, dimensions)
    end = 0
    for point in sorted(int(p) for p in rng.integers(1, steps, rng.integers(2, 8))):
        if point >= end:
            length = int(rng.integers(4, 13))
            position[point : point + length] += _severity(rng) * _direction(rng, dimensions)
            end = point + length + 1
    return _moved(position)


def turnover(rng: np.random.Generator, steps: int) -> World:
    """Questions appear at an uneven pace and are asked less and less; a model knows those from before its training."""
    half_life = float(np.exp(rng.uniform(np.log(2.0), np.log(30.0))))
    born = np.exp(rng.normal(0.0, rng.uniform(0.0, 0.8), steps))
    born[0] = rng.uniform(1.0, 12.0)
    age = np.arange(steps)[None, :] - np.arange(steps)[:, None]  # of the questions of one step at another
    asked = np.where(age >= 0, born[:, None] * 0.5 ** (np.maximum(age, 0) / half_life), 0.0)
    known = np.cumsum(asked, axis=0) / asked.sum(axis=0)[None, :]  # share of step j's traffic from before step i + 1
    later = np.tri(steps, k=-1, dtype=bool)
    return World(-np.log(np.where(later, 1.0, np.maximum(known, 1e-9))), np.ones(steps), np.arange(steps))


def halting(rng: np.random.Generator, steps: int) -> World:
    """The world moves at a steady pace, rests, and moves on, in spells of any length. Held out of training."""
    pace = float(np.exp(rng.uniform(np.log(0.004), np.log(0.03))))
    spell = rng.uniform(10.0, 60.0)
    moving = np.zeros(steps)
    t, moves = 0, bool(rng.random() < 0.5)
    while t < steps:
        length = max(3, int(rng.exponential(spell)))
        moving[t : t + length] = moves
        t, moves = t + length, not moves
    return _moved(pace * np.cumsum(moving))


def slowing(rng: np.random.Generator, steps: int) -> World:
    """Fast at first, then slower and slower. Held out of training."""
    share = np.arange(steps) / steps
    return _moved(float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))) * share ** rng.uniform(0.25, 0.6))


#: family -> how its world moves; policies train on these
FAMILIES: Final[dict[str, Callable[[np.random.Generator, int], World]]] = {
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
#: shaped after the real matrices, with a spread of their own; policies train on these too
LIKE_REAL: Final[dict[str, Callable[[np.random.Generator, int], World]]] = {"turnover": turnover}
#: families that no policy is trained or tuned on
HELD_OUT: Final[dict[str, Callable[[np.random.Generator, int], World]]] = {
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
    # a hair less than whole steps: rounding must not add one
    hours = rng.integers(1, spread.longest_steps + 1, 2) / 6.0 - 1e-7
    cost = np.exp(rng.uniform(*np.log(spread.cost_usd))) * rng.uniform(0.8, 1.2, 2)
    memory, shock = rng.uniform(0.75, 0.95, 2), rng.uniform(0.06, 0.18, 2)
    path = np.empty((steps, 2))
    path[0] = rng.normal(0.0, 0.15, 2)
    shocks = rng.normal(0.0, 1.0, (steps, 2)) * shock
    for t in range(1, steps):
        path[t] = memory * path[t - 1] + shocks[t]
    return cost / hours * np.exp(path), hours


def generate(family: str, seed: int, steps: int | None = None, spread: Spread = USUAL) -> Trace:
    """One random trace of a family; the same seed gives the same trace. Those of `LIKE_REAL` are always `SHORT`.

    Raises:
        InvalidInputError: no such family.
    """
    families = {**FAMILIES, **HELD_OUT, **LIKE_REAL}
    names = list(families)
    if family not in families:
        raise InvalidInputError(f"no drift family {family!r}; choose from: {', '.join(names)}")
    if family in LIKE_REAL:
        spread = SHORT
    rng = np.random.default_rng([seed, names.index(family)])
    length = steps or int(rng.integers(spread.steps[0], spread.steps[1] + 1))
    world = families[family](rng, length)
    speed = float(np.exp(rng.uniform(*np.log(spread.speed)))) if spread.speed else 1.0
    loss = rng.uniform(*spread.depth) * -np.expm1(-speed * world.distance)
    for i in np.flatnonzero(world.learnt < 1.0):  # in turn: what came before may be a mixture itself
        loss[i] = world.learnt[i] * loss[i] + (1.0 - world.learnt[i]) * loss[world.before[i]]
    luck = rng.normal(0.0, np.exp(rng.uniform(*np.log(spread.luck_sd))), length)
    wobble = rng.normal(0.0, rng.uniform(0.001, 0.005), length)
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
