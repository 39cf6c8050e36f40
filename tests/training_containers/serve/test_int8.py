"""8-bit answers belong to their own request alone, end where fp32's do, and nearly always are those of fp32."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.errors import ModelError
from training_containers.prompt import prompt_for
from training_containers.serve.engine import OnnxEngine
from training_containers.serve.int8 import INT8_FOLDER, Int8Engine, export_int8


@pytest.fixture(scope="module")
def quantised(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("wide"), seed=3, width=256)
    export_int8(folder)
    return folder


def _rows(vocab: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, vocab, rng.integers(1, 60)).tolist() for _ in range(count)]


def test_no_answer_depends_on_its_batch_mates_their_length_or_place(quantised: Path) -> None:
    engine = Int8Engine(quantised)
    rows, limits = _rows(engine.config.vocab_size, 24), [int(n) for n in np.random.default_rng(2).integers(1, 30, 24)]

    alone = [engine.generate_ids([row], [limit])[0] for row, limit in zip(rows, limits, strict=True)]

    assert engine.generate_ids(rows, limits) == alone
    assert engine.generate_ids(rows[::-1], limits[::-1]) == alone[::-1]
    assert engine.generate_ids([rows[0]] * 33, [limits[0]] * 33) == [alone[0]] * 33
    assert len({tuple(a[:3]) for a in alone}) > 5
    assert all(0 < len(a) <= limit for a, limit in zip(alone, limits, strict=True))


def test_a_prompt_of_one_token_changes_no_other_answer(quantised: Path) -> None:
    engine = Int8Engine(quantised)
    rows = [[5], *_rows(engine.config.vocab_size, 4), [7], [9, 11]]
    alone = [engine.generate_ids([row], [10])[0] for row in rows]

    assert engine.generate_ids(rows, [10] * 7) == alone


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


def test_first_tokens_agree_with_fp32_even_on_random_weights(quantised: Path) -> None:
    exact, small = OnnxEngine(quantised), Int8Engine(quantised)
    rows = _rows(exact.config.vocab_size, 64)

    same = [a == b for a, b in zip(exact.generate_ids(rows, [1] * 64), small.generate_ids(rows, [1] * 64), strict=True)]

    assert np.mean(same) > 0.8


def test_the_weights_take_a_quarter(quantised: Path) -> None:
    full = (quantised / "model.safetensors").stat().st_size
    small = sum(p.stat().st_size for p in (quantised / INT8_FOLDER).iterdir())

    assert small < 0.3 * full


def test_any_of_several_end_tokens_ends_an_answer(quantised: Path) -> None:
    rows = _rows(300, 1)
    said = Int8Engine(quantised).generate_ids(rows, [12])[0]
    config = (quantised / "config.json").read_text()
    try:
        (quantised / "config.json").write_text(config.replace('"eos_token_id": 0', f'"eos_token_id": [0, {said[5]}]'))
        answer = Int8Engine(quantised).generate_ids(rows, [12])[0]
    finally:
        (quantised / "config.json").write_text(config)

    assert answer == said[: said.index(said[5]) + 1]


def test_an_untied_output_layer_is_used(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

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
        lambda f: (f / "model.bin").unlink(),
        lambda f: (f / "model.bin").write_bytes((f / "model.bin").read_bytes()[:-1000]),
        lambda f: (f / "model.bin").write_bytes(b"nonsense"),
        lambda f: (f / "vocabulary.json").unlink(),
        lambda f: (f / "config.json").write_text("no json"),
    ],
)
def test_a_missing_or_damaged_file_is_refused_in_one_line(
    make_model: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = make_model(tmp_path / "m")
    spoil(export_int8(folder))

    with pytest.raises(ModelError, match="int8: CTranslate2 cannot load it") as caught:
        Int8Engine(folder)

    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_converted_says_so_and_leaves_nothing(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match="8-bit engine cannot be written"):
        export_int8(folder)

    assert not [p for p in folder.iterdir() if INT8_FOLDER in p.name]


def test_serving_in_8_bits_imports_neither_torch_nor_transformers(quantised: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import training_containers.serve.main;"
        "from training_containers.serve.int8 import Int8Engine;"
        f"Int8Engine(Path({str(quantised)!r})).generate(['hello'], 2);"
        "print(sorted({'torch', 'transformers', 'nltk', 'boto3', 'azure.storage.blob'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
