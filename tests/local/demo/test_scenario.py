"""The schedule of a demo run: deterministic, drifting when asked to, ready for two front doors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from local.demo.scenario import Pool, PoolItem, Scenario, Schedule, plan, popularity
from shared.errors import InvalidInputError

GROUPS = ("birds", "ships", "maths")
POOL = Pool(
    tuple(PoolItem(f"{g} {i}?", (f"{g}-{i}",), g) for g in GROUPS for i in range(30)), GROUPS, 1, "made for a test"
)


def run(scenario: Scenario, seed: int = 3, minutes: float = 100, share: float = 1.0) -> Schedule:
    return plan(POOL, scenario, minutes=minutes, rate_per_s=0.5, seed=seed, labelled_share=share)


def shares(schedule: Schedule, start: float, end: float) -> dict[str, float]:
    asked = [r.item.group for r in schedule.requests if start <= r.due_s / 60 < end]
    return {group: n / len(asked) for group, n in Counter(asked).items()}


def test_same_seed_same_schedule_other_seed_other_schedule() -> None:
    assert run("drift") == run("drift")
    assert run("drift").requests != run("drift", seed=4).requests


def test_drift_moves_traffic_from_group_to_group() -> None:
    schedule = run("drift")
    assert shares(schedule, 0, 15) == {"birds": 1.0}
    assert shares(schedule, 30, 50)["ships"] > 0.5
    assert "maths" not in shares(schedule, 0, 50)
    late = shares(schedule, 80, 100)
    assert late["maths"] > late["ships"] > late["birds"] > 0
    assert [group for _, group in schedule.drifts_s] == ["ships", "maths"]


@pytest.mark.parametrize("scenario", ["steady", "spike"])
def test_only_drift_asks_what_the_base_was_not_taught(scenario: Scenario) -> None:
    assert shares(run(scenario), 0, 100) == {"birds": 1.0}


def test_a_spike_multiplies_the_rate_and_ends() -> None:
    due = np.array([r.due_s for r in run("spike").requests]) / 60
    calm = ((due < 45) | (due >= 60)).sum() / 85
    spike = ((due >= 45) & (due < 60)).sum() / 15
    assert spike / calm == pytest.approx(3, rel=0.25)
    assert calm == pytest.approx(30, rel=0.1)


def test_both_doors_and_the_labelled_share() -> None:
    requests = run("steady", share=0.5).requests
    doors = Counter(r.door for r in requests)
    assert min(doors.values()) > 0.4 * len(requests)
    assert sum(r.labelled for r in requests) == pytest.approx(len(requests) / 2, rel=0.1)


def test_popularity_decays_and_is_zero_before_birth() -> None:
    weights = popularity(np.array([-1.0, 0.0, 2400.0, 1e9]))
    assert weights == pytest.approx([0, 1, 0.02 + 0.98 / np.e, 0.02])


def test_nothing_to_ask_is_said() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        Pool((), (), 0, "")
    with pytest.raises(InvalidInputError, match="--rate"):
        plan(POOL, "steady", minutes=1, rate_per_s=1e-9, seed=1)
