"""8-bit answers belong to their own request alone, end where fp32's do, and nearly always are those of fp32."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.errors import ModelError
from training_containers.model.engines.int8 import INT8_GRAPH, INT8_WEIGHTS, Int8Engine, export_int8, quantised
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.prompt import prompt_for


@pytest.fixture(scope="module")
def small_model(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    # deep enough that a sum in another order would show: it flips roundings, and they add up
    folder = make_model(tmp_path_factory.mktemp("wide"), seed=3, width=256, layers=6)
    export_int8(folder)
    return folder


def _rows(vocab: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, vocab, rng.integers(1, 60)).tolist() for _ in range(count)]


@pytest.mark.slow
def test_no_answer_depends_on_its_batch_mates_their_length_or_place(small_model: Path) -> None:
    engine = Int8Engine(small_model)
    rows, limits = _rows(engine.config.vocab_size, 24), [int(n) for n in np.random.default_rng(2).integers(1, 30, 24)]

    alone = [engine.generate_ids([row], [limit])[0] for row, limit in zip(rows, limits, strict=True)]

    assert engine.generate_ids(rows, limits) == alone
    assert engine.generate_ids(rows[::-1], limits[::-1]) == alone[::-1]
    assert engine.generate_ids([rows[0]] * 33, [limits[0]] * 33) == [alone[0]] * 33
    assert len({tuple(a[:3]) for a in alone}) > 5
    assert all(0 < len(a) <= limit for a, limit in zip(alone, limits, strict=True))


def test_a_prompt_of_one_token_changes_no_other_answer(small_model: Path) -> None:
    engine = Int8Engine(small_model)
    rows = [[5], *_rows(engine.config.vocab_size, 4), [7], [9, 11]]
    alone = [engine.generate_ids([row], [10])[0] for row in rows]

    assert engine.generate_ids(rows, [10] * 7) == alone


@pytest.mark.slow
def test_a_trained_model_ends_its_answers_and_they_are_the_taught_ones_in_any_batch(
    trained: Path, taught: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "m"))
    export_int8(folder)
    exact, small = OnnxEngine(folder), Int8Engine(folder)
    prompts = [prompt_for(question) for question, _ in taught]
    known = len(prompts)
    prompts += ["never seen", "the quick brown", "zzz " * 15]
    alone = {p: small.generate([p], 20)[0] for p in prompts}

    assert [alone[p].text for p in prompts[:known]] == [answer for _, answer in taught]
    assert all(alone[p] == exact.generate([p], 20)[0] and alone[p].finished for p in prompts[:known])
    rng = np.random.default_rng(0)
    for size in (2, 3, 8, 16):
        batch = [prompts[i] for i in rng.integers(0, len(prompts), size)]
        assert small.generate(batch, 20) == [alone[p] for p in batch]


def test_first_tokens_agree_with_fp32_even_on_random_weights(small_model: Path) -> None:
    exact, small = OnnxEngine(small_model), Int8Engine(small_model)
    rows = _rows(exact.config.vocab_size, 64)

    same = [a == b for a, b in zip(exact.generate_ids(rows, [1] * 64), small.generate_ids(rows, [1] * 64), strict=True)]

    assert np.mean(same) > 0.8


def test_a_weight_is_off_by_half_a_step_at_most_and_zero_is_zero() -> None:
    weights = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32).T  # not in C order, less than a block
    weights[1] = 0.0

    steps, scales = quantised(weights)
    back = ((steps.astype(np.float32) - 128) * scales[..., None]).reshape(3, -1)

    assert steps.shape == (3, 1, 256) and steps.flags.c_contiguous and scales.flags.c_contiguous
    assert np.all(np.abs(back[:, :40] - weights) <= scales / 2 + 1e-7)
    assert not back[1].any() and not back[:, 40:].any()
    assert np.abs(steps.astype(int) - 128).max() == 127


def test_the_weights_take_a_quarter(small_model: Path) -> None:
    full = (small_model / "model.safetensors").stat().st_size
    small = sum((small_model / name).stat().st_size for name in (INT8_GRAPH, INT8_WEIGHTS))

    assert small < 0.3 * full


def test_any_of_several_end_tokens_ends_an_answer(small_model: Path) -> None:
    rows = _rows(300, 1)
    said = Int8Engine(small_model).generate_ids(rows, [12])[0]
    config = (small_model / "config.json").read_text()
    try:
        (small_model / "config.json").write_text(config.replace('"eos_token_id": 0', f'"eos_token_id": [0, {said[5]}]'))
        answer = Int8Engine(small_model).generate_ids(rows, [12])[0]
    finally:
        (small_model / "config.json").write_text(config)

    assert answer == said[: said.index(said[5]) + 1]


def test_an_untied_output_layer_is_used(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", seed=4)
    weights = load_file(folder / "model.safetensors")
    flipped = {"lm_head.weight": weights["transformer.wte.weight"][::-1].copy()}
    save_file(weights | flipped, folder / "model.safetensors", metadata={"format": "pt"})
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("{", '{"tie_word_embeddings": false, ', 1))
    export_int8(folder)

    exact, small = OnnxEngine(folder), Int8Engine(folder)

    rows = _rows(exact.config.vocab_size, 32)
    ours, theirs = small.generate_ids(rows, [1] * 32), exact.generate_ids(rows, [1] * 32)
    assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) > 0.7


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / INT8_GRAPH).unlink(),
        lambda f: (f / INT8_GRAPH).write_bytes(b"nonsense"),
        lambda f: (f / INT8_WEIGHTS).unlink(),
        lambda f: (f / INT8_WEIGHTS).write_bytes((f / INT8_WEIGHTS).read_bytes()[:-1000]),
    ],
)
def test_a_missing_or_damaged_file_is_refused_in_one_line(
    make_model: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = make_model(tmp_path / "m", int8=True)
    spoil(folder)

    with pytest.raises(ModelError, match=r"model\.int8\.onnx: ONNX Runtime cannot load it") as caught:
        Int8Engine(folder)

    assert "\n" not in str(caught.value)


def test_a_model_that_lacks_a_weight_says_which_and_leaves_nothing(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors")

    with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_fc\.weight is missing"):
        export_int8(folder)

    assert not [p for p in folder.iterdir() if "int8" in p.name]


def test_a_full_disk_leaves_no_half_an_engine(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    # no file of this process may grow beyond a few bytes
    program = (
        "import resource, sys; from pathlib import Path; "
        "from training_containers.model.engines.int8 import export_int8; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); export_int8(Path(sys.argv[1]))"
    )

    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"ModelError: {folder}/model.int8.onnx: cannot be written: File too large"
    )
    assert not [p for p in folder.iterdir() if "int8" in p.name]


def test_serving_in_8_bits_imports_neither_torch_nor_transformers(small_model: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import training_containers.serve.main;"
        "from training_containers.model.engines.int8 import Int8Engine;"
        f"Int8Engine(Path({str(small_model)!r})).generate(['hello'], 2);"
        "print(sorted({'torch', 'transformers', 'nltk', 'boto3', 'azure.storage.blob'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
