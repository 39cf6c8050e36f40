"""Concurrent requests are answered together, the queue is bounded, deadlines hold, closing finishes what was taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.errors import InvalidInputError, ModelError
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.protocol import Answer, Bits
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
