"""The load generator against a real HTTP server: open loop, honest latency, feedback, failures counted."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from local.demo.load_generator import LoadGenerator, Outcome, by_slot
from local.demo.scenario import PoolItem, Request
from shared.contracts import Cloud


class Service:
    """What the test server does and what it was sent."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.delay_s = 0.0
        self.status = 200
        self.body: bytes = json.dumps({"answer": "a b", "model_version": "base", "cloud": "azure"}).encode()


@pytest.fixture
def served(http_server: Callable[..., Any]) -> Callable[[Service], Any]:
    """A context: a service -> its address."""

    def answer(service: Service, asked: Any) -> tuple[int, bytes]:
        service.received.append((asked.path, json.loads(asked.body)))
        if asked.path == "/predict":
            time.sleep(service.delay_s)
        return service.status, service.body

    return lambda service: http_server(functools.partial(answer, service))


def requests(n: int, gap_s: float = 0.01, door: Cloud = "aws", labelled: bool = False) -> tuple[Request, ...]:
    return tuple(Request(i * gap_s, PoolItem(f"q{i}", ("a b",), "g"), door, labelled) for i in range(n))


def send(load: LoadGenerator) -> list[Outcome]:
    with load:
        while not load.finished:
            time.sleep(0.01)
    load.raise_errors()
    return load.outcomes()


def score(prediction: str, answers: tuple[str, ...]) -> tuple[float, float]:
    return (1.0, 1.0) if prediction in answers else (0.0, 0.0)


def test_answers_are_scored_and_labelled_ones_come_back_as_feedback(served: Callable[[Service], Any]) -> None:
    service = Service()
    with served(service) as url:
        outcomes = send(LoadGenerator(requests(5, labelled=True), {"aws": url}, 1.0, score, 2.0))
    assert [(o.ok, o.bleu1, o.cloud, o.model_version) for o in outcomes] == [(True, 1.0, "azure", "base")] * 5
    feedback = [body for path, body in service.received if path == "/feedback"]
    assert sorted(f["question"] for f in feedback) == ["q0", "q1", "q2", "q3", "q4"]
    assert feedback[0].keys() == {"question", "answers", "prediction", "model_version", "cloud"}


def test_a_slow_service_delays_nobody_and_latency_counts_from_the_due_time(served: Callable[[Service], Any]) -> None:
    service = Service()
    service.delay_s = 0.5
    with served(service) as url:
        begun = time.monotonic()
        outcomes = send(LoadGenerator(requests(30), {"aws": url}, 1.0, score, 5.0))
        took_s = time.monotonic() - begun
    assert len(outcomes) == 30
    assert took_s < 5.0  # one after the other would be 15 s
    assert all(o.latency_s >= 0.5 and o.latency_s >= o.sent_s - o.due_s for o in outcomes)


def test_speed_is_simulated_seconds_per_real_second(served: Callable[[Service], Any]) -> None:
    service = Service()
    with served(service) as url:
        outcomes = send(LoadGenerator(requests(5, gap_s=10.0), {"aws": url}, 100.0, score, 2.0))
    assert sorted(o.due_s for o in outcomes) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(503, b'{"error": "busy"}', "503"), (200, b"<html>", "not JSON"), (200, b'{"x": 1}', "no answer")],
)
def test_what_is_not_an_answer_is_a_failure(
    status: int, body: bytes, said: str, served: Callable[[Service], Any]
) -> None:
    service = Service()
    service.status, service.body = status, body
    with served(service) as url:
        (outcome,) = send(LoadGenerator(requests(1, labelled=True), {"aws": url}, 1.0, score, 2.0))
    assert not outcome.ok and said in outcome.error and outcome.bleu1 is None
    assert [path for path, _ in service.received] == ["/predict"]


def test_nobody_listening_and_too_late_are_failures(served: Callable[[Service], Any]) -> None:
    (refused,) = send(LoadGenerator(requests(1), {"aws": "http://127.0.0.1:9"}, 1.0, score, 2.0))
    assert refused.status == 0 and "aws/predict" in refused.error
    service = Service()
    service.delay_s = 1.0
    with served(service) as url:
        (late,) = send(LoadGenerator(requests(1), {"aws": url}, 1.0, score, 0.2))
    assert late.status == 0 and "Timeout" in late.error


def test_leaving_early_sends_nothing_more(served: Callable[[Service], Any]) -> None:
    service = Service()
    with served(service) as url, LoadGenerator(requests(100, gap_s=5.0), {"aws": url}, 1.0, score, 2.0):
        time.sleep(0.3)
    assert len(service.received) == 1


def test_slots_group_by_due_time() -> None:
    made = [Outcome(due, due, 0.1, "aws", "g", 200) for due in (0.1, 4.5, 1.9, 2.0)]
    assert [(slot, len(found)) for slot, found in by_slot(made, 2.0)] == [(0, 2), (1, 1), (2, 1)]
