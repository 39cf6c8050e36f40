"""The load generator: sends every request at its scheduled time, whatever the answers do.

Open loop: a slow answer delays nobody else, and latency counts from the moment a request was *due*, so that a stall of
the service (or of this generator) is in the numbers instead of being left out ("coordinated omission").
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import urllib3

from local.demo.scenario import Request
from shared.contracts import Cloud

#: enough to keep sending at the default rate while every answer takes ten seconds
WORKERS: Final = 64

#: (BLEU-1, exact match) of a prediction against its reference answers
Scorer = Callable[[str, tuple[str, ...]], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. Times are real seconds since the start; `cloud` is the one that answered."""

    due_s: float
    sent_s: float
    latency_s: float
    door: Cloud
    group: str
    status: int  # HTTP status, 0 = no answer
    cloud: str | None = None
    model_version: str | None = None
    bleu1: float | None = None
    exact_match: float | None = None
    error: str = ""
    question: str = ""

    @property
    def ok(self) -> bool:
        """Answered with a prediction."""
        return self.error == ""


class LoadGenerator:
    """Sends a schedule through the front doors and keeps what became of each request.

    `speed` is simulated seconds per real second. Use as a context manager: leaving it abandons what is not sent yet
    and waits for what is on its way.
    """

    def __init__(
        self, requests: tuple[Request, ...], doors: Mapping[Cloud, str], speed: float, score: Scorer, timeout_s: float
    ) -> None:
        self.started = time.monotonic()
        self.feedback_failed = 0
        self._requests = requests
        self._doors = doors
        self._speed = speed
        self._score = score
        self._timeout_s = timeout_s
        self._http = urllib3.PoolManager(
            maxsize=WORKERS, retries=False, timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s)
        )
        self._outcomes: list[Outcome] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="load")
        self._pending: list[Future[None]] = []
        self._dispatcher = threading.Thread(target=self._dispatch, name="load-dispatcher", daemon=True)

    def __enter__(self) -> LoadGenerator:
        self.started = time.monotonic()
        self._dispatcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._dispatcher.join()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._http.clear()

    @property
    def elapsed_s(self) -> float:
        """Real seconds since the start."""
        return time.monotonic() - self.started

    @property
    def finished(self) -> bool:
        """Everything was sent and answered (or failed)."""
        return not self._dispatcher.is_alive() and all(future.done() for future in self._pending)

    def outcomes(self) -> list[Outcome]:
        """What is known so far, in order of completion."""
        with self._lock:
            return list(self._outcomes)

    def raise_errors(self) -> None:
        """Raise what a worker raised and nobody expected: a fault of this program, not of the service."""
        for future in self._pending:
            if future.done() and not future.cancelled():
                future.result()

    def _dispatch(self) -> None:
        for request in self._requests:
            due_s = request.due_s / self._speed
            while (wait_s := due_s - self.elapsed_s) > 0:
                if self._stopping.wait(min(wait_s, 0.5)):
                    return
            if self._stopping.is_set():
                return
            self._pending.append(self._workers.submit(self._send, request, due_s))

    def _send(self, request: Request, due_s: float) -> None:
        sent_s = self.elapsed_s
        reply, status, error = self._post(request.door, "/predict", {"question": request.item.question})
        latency_s = self.elapsed_s - due_s
        scores: tuple[float, float] | tuple[None, None] = (None, None)
        answer = reply.get("answer")
        if not error and isinstance(answer, str):
            scores = self._score(answer, request.item.answers)
        elif not error:
            error = "the reply has no answer"
        outcome = Outcome(
            due_s=due_s,
            sent_s=sent_s,
            latency_s=latency_s,
            door=request.door,
            group=request.item.group,
            status=status,
            cloud=reply.get("cloud"),
            model_version=reply.get("model_version"),
            bleu1=scores[0],
            exact_match=scores[1],
            error=error,
            question=request.item.question,
        )
        with self._lock:
            self._outcomes.append(outcome)
        if request.labelled and outcome.ok:
            feedback = {
                "question": request.item.question,
                "answers": list(request.item.answers),
                "prediction": answer,
                "model_version": outcome.model_version,
                "cloud": outcome.cloud,
            }
            if self._post(request.door, "/feedback", feedback)[2]:
                with self._lock:
                    self.feedback_failed += 1

    def _post(self, door: Cloud, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], int, str]:
        """(reply, HTTP status, error): the error is empty when the reply is a JSON object with a 2xx status."""
        try:
            response = self._http.request("POST", self._doors[door].rstrip("/") + path, json=body)
        except urllib3.exceptions.HTTPError as exc:
            return {}, 0, f"{door}{path}: {type(exc).__name__}: {exc}"[:300]
        try:
            reply = json.loads(response.data)
        except ValueError:
            return {}, response.status, f"{door}{path}: HTTP {response.status}, not JSON"
        if not 200 <= response.status < 300 or not isinstance(reply, dict):
            return {}, response.status, f"{door}{path}: HTTP {response.status}: {reply}"[:300]
        return reply, response.status, ""


def by_slot(outcomes: list[Outcome], slot_s: float) -> Iterator[tuple[int, list[Outcome]]]:
    """(slot number, outcomes that were due in it) for every slot with a request, ascending."""
    slots: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        slots.setdefault(int(outcome.due_s // slot_s), []).append(outcome)
    yield from sorted(slots.items())
