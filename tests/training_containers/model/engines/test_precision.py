"""8-bit serves only where its answers were measured to be fp32's, on the processor at hand."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.errors import ModelError
from training_containers.model.engines.int8 import Int8Engine
from training_containers.model.engines.precision import (
    PRECISION_FILE,
    Precision,
    Probe,
    Wanted,
    add_int8,
    load_engine,
)

WORDS = ["what", "who", "when", "where", "which", "is", "was", "the", "first", "largest", "hamlet", "france", "moon"]


def _prompts(count: int = 40) -> list[str]:
    rng = np.random.default_rng(0)
    return ["question: " + " ".join(rng.choice(WORDS, rng.integers(3, 9))) + "? answer:" for _ in range(count)]


@pytest.fixture(scope="module")
def measured(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("measured"), seed=3, width=128)
    add_int8(folder, _prompts())
    return folder


@pytest.fixture
def model(measured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured, tmp_path / "m"))


def _record(folder: Path, **changes: object) -> Precision:
    found = msgspec.json.decode((folder / PRECISION_FILE).read_bytes(), type=Precision)
    changed = msgspec.structs.replace(found, **changes)
    (folder / PRECISION_FILE).write_bytes(msgspec.json.encode(changed))
    return changed


def test_what_is_recorded_is_the_share_of_equal_answers(model: Path) -> None:
    found = _record(model)
    exact, small = load_engine(model, 1, Wanted.FP32, 0.0), load_engine(model, 1, Wanted.INT8, 0.0)

    same = [exact.generate([p], 16) == small.generate([p], 16) for p in _prompts()]

    assert found.questions == 40
    assert found.agreement == pytest.approx(np.mean(same))
    assert (exact.precision, exact.agreement) == ("fp32", None)
    assert (small.precision, small.agreement) == ("int8", found.agreement)


@pytest.mark.parametrize(
    ("agreement", "bound", "wanted", "precision", "says"),
    [
        (0.98, 0.98, Wanted.INT8, "int8", None),
        (0.97, 0.98, Wanted.INT8, "fp32", "agrees with fp32 on 0.970 of the answers, the bound is 0.98"),
        (1.0, 0.98, Wanted.AUTO, "fp32", "too small to gain"),
        (1.0, 0.98, Wanted.FP32, "fp32", None),
    ],
)
def test_the_bound_decides_and_the_fallback_is_logged(
    model: Path,
    caplog: pytest.LogCaptureFixture,
    agreement: float,
    bound: float,
    wanted: Wanted,
    precision: str,
    says: str | None,
) -> None:
    _record(model, agreement=agreement)

    with caplog.at_level(logging.WARNING):
        engine = load_engine(model, 1, wanted, bound)

    assert engine.precision == precision
    reasons = [r.reason for r in caplog.records if r.message == "serving in fp32"]  # type: ignore[attr-defined]
    assert len(reasons) == (says is not None)
    assert says is None or says in reasons[0]


def test_a_processor_that_computes_other_answers_serves_fp32(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    probe = _record(model, agreement=1.0).probes[0]
    _record(model, probes=(Probe(probe.prompt, (*probe.tokens[:-1], probe.tokens[-1] + 1)),))

    engine = load_engine(model, 1, Wanted.INT8, 0.98)

    assert engine.precision == "fp32"
    assert "this processor" in caplog.records[-1].reason  # type: ignore[attr-defined]


def test_a_few_questions_prove_nothing(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    add_int8(folder, _prompts(5))

    assert load_engine(folder, 1, Wanted.INT8, 0.0).precision == "fp32"


def test_questions_that_do_not_fit_are_left_out(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")

    some, none = add_int8(folder, [*_prompts(3), "word " * 500]), add_int8(folder, [])

    assert some.questions == 3
    assert none.agreement == 0.0


def test_a_model_without_an_8_bit_engine_serves_fp32(model_dir: Path) -> None:
    assert load_engine(model_dir, 1, Wanted.AUTO, 0.98).precision == "fp32"


def test_a_model_with_a_padded_vocabulary_has_an_8_bit_engine_too(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    table = weights["transformer.wte.weight"]
    weights["transformer.wte.weight"] = np.concatenate([table, np.zeros((7, table.shape[1]), np.float32)])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(msgspec.json.encode(config | {"vocab_size": len(table) + 7}))

    assert add_int8(folder, _prompts()).agreement > 0
    assert load_engine(folder, 1, Wanted.INT8, 0.0).precision == "int8"


def test_a_processor_that_answers_a_lone_request_otherwise_than_a_batch_serves_fp32(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Int8Engine.generate_ids

    def differing(engine: Int8Engine, rows: list[list[int]], limits: list[int]) -> list[list[int]]:
        found = plain(engine, rows, limits)
        return found if len(rows) > 1 else [[ids[0] ^ 1, *ids[1:]] for ids in found]

    monkeypatch.setattr(Int8Engine, "generate_ids", differing)

    assert load_engine(model, 1, Wanted.INT8, 0.0).precision == "fp32"


def test_a_damaged_record_is_refused(model: Path) -> None:
    (model / PRECISION_FILE).write_text('{"agreement": 2}')

    with pytest.raises(ModelError, match=r"precision\.json: not a record"):
        load_engine(model, 1, Wanted.INT8, 0.98)
