"""The observer against a real HTTP server: what it keeps, and that trouble is said and survived."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from local.demo.observer import Observer
from shared.contracts import Decision, JobRecord, JobStatus, TrainingJob


@pytest.fixture
def decision(a_decision: Callable[..., Decision]) -> Callable[[int], Decision]:
    """A function: second -> the decision of then."""
    return lambda n: a_decision(decision_id=f"decision-qa-{n:03d}", slot_s=float(n))


@pytest.fixture
def job(a_job: Callable[..., TrainingJob]) -> Callable[[JobStatus], JobRecord]:
    """A function: status -> the record of the one job."""
    return lambda status: JobRecord(job=a_job(), status=status, updated_s=2.0)


class Door:
    """What the test server answers, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.decisions: list[Decision] = []
        self.jobs: list[JobRecord] = []
        self.paths: list[str] = []

    def body(self, path: str) -> dict[str, Any]:
        if self.status != 200:
            return {"error": "broken"}
        return {"jobs": self.jobs} if path == "/jobs" else {"decisions": self.decisions}


@pytest.fixture
def opened(http_server: Callable[..., Any]) -> Callable[[Door], Any]:
    """A context: a door -> its address."""

    def answer(door: Door, asked: Any) -> tuple[int, bytes]:
        door.paths.append(asked.path)
        return door.status, msgspec.json.encode(door.body(asked.path))

    return lambda door: http_server(functools.partial(answer, door))


def test_both_doors_are_merged_and_decisions_asked_for_incrementally(
    decision: Callable[[int], Decision], job: Callable[[JobStatus], JobRecord], opened: Callable[[Door], Any]
) -> None:
    door = Door()
    door.decisions, door.jobs = [decision(1), decision(2)], [job(JobStatus.TRAINING)]
    with opened(door) as url:
        observer = Observer({"aws": url, "azure": url}, 60.0)
        observer.poll()
        door.decisions, door.jobs = [decision(2), decision(3)], [job(JobStatus.LIVE)]
        observer.poll()
    assert [d.slot_s for d in observer.decisions()] == [1.0, 2.0, 3.0]
    assert [j.status for j in observer.jobs()] == [JobStatus.LIVE]
    assert "/decisions?since=2" in door.paths and observer.problem == ""


def test_a_door_that_fails_is_said_and_the_next_poll_recovers(
    decision: Callable[[int], Decision], opened: Callable[[Door], Any]
) -> None:
    door = Door()
    door.status = 500
    with opened(door) as url:
        observer = Observer({"aws": url}, 60.0)
        observer.poll()
        assert "HTTP 500" in observer.problem and observer.decisions() == []
        door.status, door.decisions = 200, [decision(1)]
        observer.poll()
    assert observer.problem == "" and len(observer.decisions()) == 1


def test_nobody_listening_is_said() -> None:
    observer = Observer({"aws": "http://127.0.0.1:9"}, 60.0)
    observer.poll()
    assert "aws/decisions" in observer.problem and "aws/jobs" in observer.problem
