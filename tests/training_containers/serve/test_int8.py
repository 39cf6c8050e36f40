"""8-bit answers belong to their own request alone, and nearly always are those of fp32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.errors import ModelError
from training_containers.serve.engine import OnnxEngine
from training_containers.serve.int8 import GRAPH_INT8, WEIGHTS_INT8, export_int8, quantise_columns

WIDE = 256


@pytest.fixture(scope="module")
def quantised(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("wide"), seed=3, width=WIDE)
    export_int8(folder)
    return folder


def _rows(vocab: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, vocab, rng.integers(1, 60)).tolist() for _ in range(count)]


def test_no_answer_depends_on_its_batch_mates_their_length_or_place(quantised: Path) -> None:
    engine = OnnxEngine(quantised, precision="int8")
    rows, limits = _rows(engine.config.vocab_size, 24), [int(n) for n in np.random.default_rng(2).integers(1, 30, 24)]

    alone = [engine.generate_ids([row], [limit])[0] for row, limit in zip(rows, limits, strict=True)]

    assert engine.generate_ids(rows, limits) == alone
    assert engine.generate_ids(rows[::-1], limits[::-1]) == alone[::-1]
    assert engine.generate_ids([rows[0]] * 33, [limits[0]] * 33) == [alone[0]] * 33
    assert len({tuple(a[:3]) for a in alone}) > 5


def test_first_tokens_agree_with_fp32_even_on_random_weights(quantised: Path) -> None:
    exact, small = OnnxEngine(quantised), OnnxEngine(quantised, precision="int8")
    rows = _rows(exact.config.vocab_size, 64)

    same = [a == b for a, b in zip(exact.generate_ids(rows, [1] * 64), small.generate_ids(rows, [1] * 64), strict=True)]

    assert np.mean(same) > 0.85


def test_the_weights_take_a_quarter(quantised: Path) -> None:
    full, small = (quantised / "model.safetensors").stat().st_size, (quantised / WEIGHTS_INT8).stat().st_size

    # the page alignment of so small a model's many tensors is not nothing
    assert small < 0.4 * full
    assert (quantised / GRAPH_INT8).stat().st_size < 60_000


def test_a_column_is_recovered_to_half_a_level_and_a_zero_one_stays_zero() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (64, 5)).astype(np.float32)
    weight[:, 2] = 0

    levels, scales = quantise_columns(weight)

    assert np.abs(levels * scales - weight).max() <= scales.max() / 2 * 1.001
    assert not levels[:, 2].any()
    assert np.abs(levels).max() == 127


def test_an_untied_output_layer_and_a_tiny_vocabulary_work(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model(tmp_path / "m", seed=4)
    weights = load_file(folder / "model.safetensors")
    flipped = {"lm_head.weight": weights["transformer.wte.weight"][::-1].copy()}
    save_file(weights | flipped, folder / "model.safetensors")
    export_int8(folder)

    exact, small = OnnxEngine(folder), OnnxEngine(folder, precision="int8")

    rows = _rows(exact.config.vocab_size, 32)
    ours, theirs = small.generate_ids(rows, [1] * 32), exact.generate_ids(rows, [1] * 32)
    assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) > 0.7


def test_without_the_files_the_engine_says_so(model_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.int8\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(model_dir, precision="int8")
