"""Drafts change how long a lone answer takes, never the answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training_containers.model.engines import precision
from training_containers.model.engines.int8 import INT8_GRAPH, INT8_WEIGHTS, export_int8
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.precision import Wanted, load_engine
from training_containers.model.engines.speculative import SpeculativeEngine


@pytest.fixture
def folder(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    made = make_model(tmp_path / "m", seed=6, width=64)
    export_int8(made)
    return made


def _rows(vocab: int) -> tuple[list[list[int]], list[int]]:
    rng = np.random.default_rng(4)
    rows = [rng.integers(1, vocab, rng.integers(1, 50)).tolist() for _ in range(24)]
    return rows, [int(n) for n in rng.integers(1, 40, 24)]


def _compare(exact: OnnxEngine, drafted: SpeculativeEngine) -> None:
    rows, limits = _rows(exact.config.vocab_size)
    for row, limit in zip(rows, limits, strict=True):
        assert drafted.generate_ids([row], [limit]) == exact.generate_ids([row], [limit])
    assert drafted.generate_ids(rows, limits) == exact.generate_ids(rows, limits)


def test_every_answer_is_the_one_without_drafts(folder: Path) -> None:
    _compare(OnnxEngine(folder), SpeculativeEngine(folder, 1))


def test_drafts_of_another_model_cost_time_only(folder: Path, make_model: Callable[..., Path], tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=7, width=64)
    export_int8(other)
    for name in (INT8_GRAPH, INT8_WEIGHTS):
        shutil.copy(other / name, folder / name)

    _compare(OnnxEngine(folder), SpeculativeEngine(folder, 1))


def test_good_drafts_save_most_fp32_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SpeculativeEngine(folder, 1)
    passes, plain = [], OnnxEngine.step

    def counted(self: OnnxEngine, *arguments: object) -> object:
        passes.append(self is engine)
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxEngine, "step", counted)
    rows, _ = _rows(engine.config.vocab_size)
    for row in rows:
        engine.generate_ids([row], [24])

    assert sum(passes) < 24 * 24 / 2


def test_an_end_of_text_that_was_drafted_ends_the_answer(folder: Path) -> None:
    exact = OnnxEngine(folder)
    rows, _ = _rows(exact.config.vocab_size)
    ends = exact.generate_ids([rows[0]], [12])[0][5]
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"eos_token_id": 0', f'"eos_token_id": {ends}'))

    answer = SpeculativeEngine(folder, 1).generate_ids([rows[0]], [12])

    assert answer == OnnxEngine(folder).generate_ids([rows[0]], [12])
    assert answer[0][-1] == ends
    assert len(answer[0]) <= 6


def test_a_large_model_with_its_8_bit_copy_drafts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(load_engine(folder, 1, Wanted.FP32, 1)) is OnnxEngine

    monkeypatch.setattr(precision, "SMALL_MODEL_BYTES", 1000)

    assert type(load_engine(folder, 1, Wanted.FP32, 1)) is SpeculativeEngine
