"""Workload of a run: a seeded schedule of requests over a pool of questions, steady, with a spike, or drifting.

A pool is ordered into groups (topics of the built-in questions, periods of a dated file). What is asked follows two
rules seen in real question streams: a question exists from its birth on, and its popularity decays with age. So drift
is nothing but births: `drift` lets the later groups arrive one after the other, `steady` and `spike` ask only what the
base model was taught. Times are simulated seconds since the start; the seed decides everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from local.demo.arrivals import ArrivalTrace
from shared.contracts import CLOUDS, Cloud
from shared.errors import InvalidInputError

Scenario = Literal["steady", "spike", "drift"]
SCENARIOS: Final[tuple[Scenario, ...]] = ("steady", "spike", "drift")

#: popularity of a question falls to 1/e of its first value in this time, but never below FLOOR
POPULARITY_DECAY_S: Final = 40 * 60.0
POPULARITY_FLOOR: Final = 0.02
#: the questions of a group are born over this time, so that drift is a ramp and not a cliff
RAMP_S: Final = 6 * 60.0
#: the later groups divide this part of the run among them: each leaves time to notice it, to train and to recover
DRIFT_SPAN: Final = (0.15, 1.0)
#: the spike: when (share of the run), and how many times the base rate
SPIKE_SPAN: Final = (0.45, 0.6)
SPIKE_FACTOR: Final = 3.0
#: popularity is sampled from a table with this resolution
TABLE_STEP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PoolItem:
    """One question that can be asked. `group` is its topic or period."""

    question: str
    answers: tuple[str, ...]
    group: str


@dataclass(frozen=True, slots=True)
class Pool:
    """The questions of a run, and the groups in order of arrival; `taught` of them were taught to the base model."""

    items: tuple[PoolItem, ...]
    groups: tuple[str, ...]
    taught: int
    description: str

    def __post_init__(self) -> None:
        if not self.items:
            raise InvalidInputError("no questions to ask; the question file is empty")
        if not 1 <= self.taught <= len(self.groups):
            raise InvalidInputError(f"{self.taught} of {len(self.groups)} groups taught; at least one is needed")


@dataclass(frozen=True, slots=True)
class Request:
    """One scheduled request: when (simulated seconds), what, through which cloud's front door."""

    due_s: float
    item: PoolItem
    door: Cloud
    labelled: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """Every request of a run in order of time, and the words that say how it was made."""

    requests: tuple[Request, ...]
    minutes: float
    scenario: Scenario
    births_s: dict[str, float]
    notes: tuple[str, ...]

    @property
    def drifts_s(self) -> list[tuple[float, str]]:
        """(when, which group) for every group that arrives during the run."""
        return sorted((at, group) for group, at in self.births_s.items() if at > 0)


def plan(
    pool: Pool,
    scenario: Scenario,
    *,
    minutes: float,
    rate_per_s: float,
    seed: int,
    labelled_share: float = 1.0,
    trace: ArrivalTrace | None = None,
) -> Schedule:
    """Lay out a run of `minutes` simulated minutes with `rate_per_s` requests per simulated second on average.

    With a `trace` the arrival times are its own, stretched to the length of the run when it is shorter and thinned to
    the rate; the notes say by how much.
    """
    rng = np.random.default_rng(seed)
    length_s = minutes * 60
    notes: list[str] = [pool.description]
    if trace is None:
        due = _poisson(rng, length_s, rate_per_s, scenario)
        notes.append(f"arrivals: Poisson, {rate_per_s * 60:.0f} per simulated minute on average")
    else:
        due, note = trace.fitted(rng, length_s, rate_per_s)
        notes.append(note)
    births = _group_births(pool, scenario, length_s)
    picked = _pick(rng, pool, births, due, length_s)
    doors = rng.integers(0, len(CLOUDS), size=len(due))
    labelled = rng.random(len(due)) < labelled_share
    requests = tuple(
        Request(float(at), pool.items[item], CLOUDS[door], bool(label))
        for at, item, door, label in zip(due, picked, doors, labelled, strict=True)
    )
    if not requests:
        raise InvalidInputError("the schedule has no request; raise --rate or --minutes")
    return Schedule(requests, minutes, scenario, births, tuple(notes))


def _poisson(rng: np.random.Generator, length_s: float, rate_per_s: float, scenario: Scenario) -> NDArray[np.float64]:
    """Arrival times of a Poisson process by thinning one at the highest rate."""
    peak = SPIKE_FACTOR if scenario == "spike" else 1.0
    count = rng.poisson(length_s * rate_per_s * peak)
    due = np.sort(rng.uniform(0, length_s, count))
    if scenario == "spike":
        inside = (due >= SPIKE_SPAN[0] * length_s) & (due < SPIKE_SPAN[1] * length_s)
        due = due[inside | (rng.random(count) < 1 / SPIKE_FACTOR)]
    return due


def _group_births(pool: Pool, scenario: Scenario, length_s: float) -> dict[str, float]:
    """When each group arrives; taught groups are there from before the start, groups that never arrive are absent."""
    births = dict.fromkeys(pool.groups[: pool.taught], -RAMP_S)
    later = pool.groups[pool.taught :]
    if scenario == "drift" and later:
        first, last = (share * length_s for share in DRIFT_SPAN)
        for number, group in enumerate(later):
            births[group] = first + (last - first) * number / len(later)
    return births


def _pick(
    rng: np.random.Generator, pool: Pool, births: dict[str, float], due: NDArray[np.float64], length_s: float
) -> NDArray[np.int64]:
    """The index of the item that each request asks for, by popularity at its time."""
    start = np.array([births.get(item.group, np.inf) for item in pool.items])
    ramp = min(RAMP_S, length_s / 10)
    born = start + rng.uniform(0, ramp, len(start))  # (items,)
    picked = np.empty(len(due), dtype=np.int64)
    for step in range(int(np.ceil(length_s / TABLE_STEP_S))):
        low, high = np.searchsorted(due, [step * TABLE_STEP_S, (step + 1) * TABLE_STEP_S])
        if high > low:
            weights = popularity(step * TABLE_STEP_S - born)
            picked[low:high] = rng.choice(len(weights), size=high - low, p=weights / weights.sum())
    return picked


def popularity(age_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often a question of this age is asked, relative to a new one; 0 before its birth."""
    decayed = np.exp(-np.maximum(age_s, 0) / POPULARITY_DECAY_S)
    return np.where(age_s < 0, 0.0, POPULARITY_FLOOR + (1 - POPULARITY_FLOOR) * decayed)
