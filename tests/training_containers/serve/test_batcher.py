"""Concurrent requests are answered together, the queue is bounded, deadlines hold, closing finishes what was taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import InvalidInputError, ModelError
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.protocol import Answer, Bits
from training_containers.serve import batcher as module
from training_containers.serve.batcher import Batcher, ClosedError, DeadlineExceededError, QueueFullError


class GatedEngine:
    """The real engine behind a gate, so that a test decides how long a batch takes."""

    precision: Bits = "fp32"
    agreement: float | None = None

    def __init__(self, model_dir: Path) -> None:
        self.engine = OnnxEngine(model_dir)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []
        self.pause_s = 0.0

    def check(self, prompt: str, max_new_tokens: int) -> None:
        self.engine.check(prompt, max_new_tokens)

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]:
        self.batches.append(list(prompts))
        self.entered.set()
        assert self.gate.wait(20)
        time.sleep(self.pause_s)
        if "break" in prompts:
            raise ModelError("the engine broke")
        return self.engine.generate(prompts, max_new_tokens)


@pytest.fixture
def engine(model_dir: Path) -> GatedEngine:
    return GatedEngine(model_dir)


def _wait_for_depth(batcher: Batcher, depth: int) -> None:
    until = time.monotonic() + 10
    while batcher.depth != depth:
        assert time.monotonic() < until
        time.sleep(0.002)


def test_what_waits_is_answered_in_one_batch_and_each_caller_gets_its_own_answer(engine: GatedEngine) -> None:
    batcher = Batcher(engine, max_batch=4)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.answer, "first", 4, 10)
        assert engine.entered.wait(5)
        prompts = [f"question {i}" for i in range(6)]
        later = [pool.submit(batcher.answer, p, 4 + i, 10) for i, p in enumerate(prompts)]
        _wait_for_depth(batcher, 6)
        engine.gate.set()
        answers = [f.result() for f in later]
        first.result()

    assert [len(b) for b in engine.batches] == [1, 4, 2]
    assert answers == [engine.engine.generate([p], 4 + i)[0] for i, p in enumerate(prompts)]
    batcher.close()


def test_clients_who_were_answered_together_are_answered_together_again(engine: GatedEngine) -> None:
    """Without holding the batch, the first to come back would be computed alone, over and over."""
    batcher = Batcher(engine, max_batch=8)
    engine.pause_s = 0.15

    def client(number: int) -> None:
        for _ in range(6):
            batcher.answer(f"question {number}", 1, 20)

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, i) for i in range(8)]
        assert engine.entered.wait(5)
        _wait_for_depth(batcher, 8 - len(engine.batches[0]))
        engine.gate.set()
        for finished in clients:
            finished.result()
    batcher.close()

    sizes = [len(b) for b in engine.batches]
    assert sum(sizes) == 48
    assert sum(size == 8 for size in sizes) >= 4, sizes


def test_a_full_queue_refuses_at_once_and_says_when_to_retry(engine: GatedEngine) -> None:
    batcher = Batcher(engine, max_waiting=2)
    with ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(batcher.answer, "a", 2, 10)]
        assert engine.entered.wait(5)
        taken += [pool.submit(batcher.answer, "b", 2, 10) for _ in range(2)]
        _wait_for_depth(batcher, 2)

        with pytest.raises(QueueFullError) as caught:
            batcher.answer("c", 2, 10)

        engine.gate.set()
        assert all(f.result() for f in taken)
    assert caught.value.retry_after_s >= 1
    batcher.close()


def test_a_request_past_its_deadline_is_not_computed(engine: GatedEngine) -> None:
    batcher = Batcher(engine)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(batcher.answer, "running", 2, 10)
        assert engine.entered.wait(5)
        begin = time.monotonic()

        with pytest.raises(DeadlineExceededError, match=r"deadline of 0\.05 s"):
            batcher.answer("too late", 2, 0.05)

        assert time.monotonic() - begin < 5
        engine.gate.set()
        running.result()
    batcher.close()
    assert engine.batches == [["running"]]


def test_closing_finishes_what_was_taken_and_refuses_the_rest(engine: GatedEngine) -> None:
    batcher = Batcher(engine, max_batch=1)
    with ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(batcher.answer, f"q{i}", 2, 10) for i in range(3)]
        _wait_for_depth(batcher, 2)
        closing = pool.submit(batcher.close)
        time.sleep(0.05)
        with pytest.raises(ClosedError):
            batcher.answer("too late", 2, 10)
        engine.gate.set()
        assert all(f.result() for f in taken)
        closing.result()


def test_a_broken_batch_reaches_its_callers_and_the_next_one_works(engine: GatedEngine) -> None:
    engine.gate.set()
    batcher = Batcher(engine)

    with pytest.raises(ModelError, match="the engine broke"):
        batcher.answer("break", 2, 10)

    assert batcher.answer("fine", 2, 10).tokens
    batcher.close()


def test_a_prompt_that_does_not_fit_spoils_no_batch(engine: GatedEngine) -> None:
    batcher = Batcher(engine)

    with pytest.raises(InvalidInputError, match="room for"):
        batcher.answer("word " * 500, 2, 10)

    assert engine.batches == []
    batcher.close()


class Stage:
    """A batcher in made-up time: a batch takes as long as the test says, and so do the gaps between requests."""

    precision: Bits = "fp32"
    agreement: float | None = None

    def __init__(self) -> None:
        self.now = 1000.0
        self.batch_s = 1.0
        self.sizes: list[int] = []
        self.waits: list[float] = []
        self.gaps: Iterator[float] = iter(())  # until the next request comes while a batch is held
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.pool = ThreadPoolExecutor(100)
        self.sent: list[Future[Answer]] = []
        self.batcher: Batcher

    def check(self, prompt: str, max_new_tokens: int) -> None:
        """Everything fits."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]:
        self.entered.set()
        assert self.gate.wait(20)
        self.sizes.append(len(prompts))
        self.now += self.batch_s
        return [Answer("", (1,), True) for _ in prompts]

    def send(self, number: int = 1) -> None:
        self.sent += [self.pool.submit(self.batcher.answer, "q", 1, 20) for _ in range(number)]

    def answered(self) -> None:
        while self.sent:
            self.sent.pop().result(20)

    def behind_a_batch(self, number: int) -> None:
        """One request in the engine, so many behind it."""
        self.gate.clear()
        self.entered.clear()
        self.send()
        assert self.entered.wait(5)
        self.send(number)
        _wait_for_depth(self.batcher, number)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**changes: Any) -> Stage:
        stage = Stage()

        class Held(threading.Condition):
            def wait(self, timeout: float | None = None) -> bool:
                if timeout is None:
                    return super().wait()
                stage.waits.append(timeout)
                gap_s = next(stage.gaps, None)
                stage.now += timeout if gap_s is None else min(timeout, gap_s)
                if gap_s is None or gap_s > timeout:
                    return False
                stage.send()
                return super().wait(10)

        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: stage.now))
        monkeypatch.setattr(module, "threading", SimpleNamespace(Condition=Held, Thread=threading.Thread))
        stage.batcher = Batcher(stage, **changes)
        made.append(stage)
        return stage

    yield make
    for stage in made:
        stage.gate.set()
        stage.batcher.close(5)
        stage.pool.shutdown()


def _retry_after(stage: Stage) -> int:
    with pytest.raises(QueueFullError) as caught:
        stage.batcher.answer("one too many", 1, 1)
    stage.gate.set()
    stage.answered()
    return caught.value.retry_after_s


def test_who_is_refused_is_told_how_long_the_queue_takes(stage: Callable[..., Stage]) -> None:
    full = stage(max_batch=2, max_waiting=4)
    full.batch_s = 10.0
    for _ in range(40):
        full.send()
        full.answered()
    full.behind_a_batch(4)
    assert _retry_after(full) == 20, "two batches of ten seconds"
    full.batch_s = 60.0
    full.send()
    full.answered()
    full.behind_a_batch(4)
    assert 35 <= _retry_after(full) <= 41, "one slow batch counts for a fifth"


def test_who_is_refused_before_the_first_batch_is_told_little(stage: Callable[..., Stage]) -> None:
    small, large = stage(max_batch=4, max_waiting=1), stage(max_batch=1, max_waiting=60)
    for one, most in ((small, 1), (large, 60)):
        one.behind_a_batch(most)
    assert _retry_after(small) == 1, "never less than a second"
    assert _retry_after(large) == 3, "sixty batches of a twentieth of a second"


def test_a_client_that_is_alone_never_waits(stage: Callable[..., Stage]) -> None:
    alone = stage()
    for _ in range(5):
        alone.send()
        alone.answered()
    assert (alone.sizes, alone.waits) == ([1] * 5, [])


def _fifty_answered_together(stage: Stage) -> None:
    for _ in range(40):  # how long a batch takes is known
        stage.send()
        stage.answered()
    stage.behind_a_batch(49)
    stage.gaps = iter([0.003])
    stage.gate.set()
    stage.answered()
    assert stage.sizes[-1] == 50, "the one before them came back at once and is of their number"


def test_a_batch_is_held_for_a_tenth_of_its_time_at_most(stage: Callable[..., Stage]) -> None:
    held = stage(max_batch=64)
    held.batch_s = 0.5
    _fifty_answered_together(held)
    held.gaps = iter([0.003] * 60)
    held.send()
    held.answered()
    assert 15 <= held.sizes[-1] <= 19, "one every 3 ms for 50 ms"


def test_a_batch_is_held_only_while_requests_keep_coming(stage: Callable[..., Stage]) -> None:
    held = stage(max_batch=64)
    _fifty_answered_together(held)
    held.gaps = iter([0.003, 0.003, 0.006])
    held.send()
    held.answered()
    assert held.sizes[-1] == 3
    assert sum(held.waits[-3:]) <= 0.013


def test_a_batch_is_held_for_those_who_fit_into_it_and_for_no_more(stage: Callable[..., Stage]) -> None:
    held = stage(max_batch=8)
    held.behind_a_batch(20)
    held.gate.set()
    held.answered()
    assert held.sizes == [1, 8, 8, 4]
    assert len(held.waits) == 1, "only for the last four did anybody wait"


def test_a_batcher_that_nobody_closed_keeps_no_program_from_ending(stage: Callable[..., Stage]) -> None:
    stage(name="left")
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "batcher-left"] == [True]
