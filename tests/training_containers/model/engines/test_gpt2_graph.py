"""A model directory becomes a graph that reads the safetensors file itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.errors import ModelError
from training_containers.model.engines.gpt2_graph import export_onnx, read_config
from training_containers.model.engines.onnx_gpt2 import OnnxEngine

PROMPTS = ["question: who wrote hamlet? answer:", "the"]


def test_the_graph_holds_no_weights_so_an_artifact_stores_each_one_once(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")

    graph = export_onnx(folder)

    assert graph == folder / "model.onnx"
    assert graph.stat().st_size < 20_000 < (folder / "model.safetensors").stat().st_size


def test_an_exported_and_a_plain_directory_answer_alike(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    plain = OnnxEngine(folder).generate(PROMPTS, 8)

    export_onnx(folder)

    assert OnnxEngine(folder).generate(PROMPTS, 8) == plain


def test_the_names_used_on_the_hub_are_understood(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    expected = OnnxEngine(folder).generate(PROMPTS, 8)
    weights = load_file(folder / "model.safetensors")

    save_file({k.removeprefix("transformer."): v for k, v in weights.items()}, folder / "model.safetensors")

    assert OnnxEngine(folder).generate(PROMPTS, 8) == expected


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_served_as_the_fp32_they_stand_for(
    make_model: Callable[..., Path], tmp_path: Path, dtype: type
) -> None:
    folder, rounded = make_model(tmp_path / "half"), make_model(tmp_path / "rounded")
    weights = {k: v.astype(dtype) for k, v in load_file(folder / "model.safetensors").items()}

    save_file(weights, folder / "model.safetensors")
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, rounded / "model.safetensors")

    assert OnnxEngine(folder).generate(PROMPTS, 8) == OnnxEngine(rounded).generate(PROMPTS, 8)


def test_an_untied_output_layer_is_used(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    before = OnnxEngine(folder).generate(PROMPTS, 8)

    save_file(
        weights | {"lm_head.weight": weights["transformer.wte.weight"][::-1].copy()}, folder / "model.safetensors"
    )

    assert OnnxEngine(folder).generate(PROMPTS, 8) != before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "not a GPT-2 configuration"),
        (lambda f: _change(f, model_type="llama"), "only decoder-only gpt2"),
        (lambda f: _change(f, n_head=5), "not a multiple"),
        (lambda f: _change(f, n_layer=3), "h.2.ln_1.weight is missing"),
        (lambda f: _change(f, vocab_size=7), "config.json implies"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"PK" * 100), "not a safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "not a safetensors file"),
        (lambda f: _truncate(f / "model.safetensors"), "cut short"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: not found"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "not a tokenizer"),
        (lambda f: (f / "model.onnx").write_bytes(b"nonsense"), "ONNX Runtime cannot load it"),
    ],
)
def test_an_unusable_directory_is_refused_in_one_line(
    make_model: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = make_model(tmp_path / "m")
    spoil(folder)

    with pytest.raises(ModelError, match=message) as caught:
        OnnxEngine(folder)

    assert "\n" not in str(caught.value)


def test_the_end_of_text_may_be_several_tokens(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    _change(folder, eos_token_id=[0, 7])

    assert read_config(folder).eos_ids == {0, 7}


def _change(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])
