"""Answers are those of Hugging Face greedy decoding, alone and in any batch, without torch at serve time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.errors import InvalidInputError
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.prompt import prompt_for

Taught = list[tuple[str, str]]


def _reference(folder: Path, rows: list[list[int]], limits: list[int]) -> list[list[int]]:
    """Hugging Face greedy decoding, one request at a time."""
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    found = []
    for row, limit in zip(rows, limits, strict=True):
        ids = torch.tensor([row])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
        found.append(out[0, len(row) :].tolist())
    return found


def _rows(vocab: int, count: int, seed: int) -> tuple[list[list[int]], list[int]]:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, vocab, rng.integers(1, 60)).tolist() for _ in range(count)]
    return rows, rng.integers(1, 30, count).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_answer_as_hugging_face_does_alone_and_batched(
    make_model: Callable[..., Path], tmp_path: Path, seed: int
) -> None:
    engine = OnnxEngine(make_model(tmp_path / "m", seed=seed))
    rows, limits = _rows(engine.config.vocab_size, 24, seed)

    batched = engine.generate_ids(rows, limits)
    alone = [engine.generate_ids([row], [limit])[0] for row, limit in zip(rows, limits, strict=True)]

    assert batched == _reference(tmp_path / "m", rows, limits)
    assert alone == batched
    assert len({tuple(a[:3]) for a in batched}) > 5, "the models must say different things for this to mean anything"


@pytest.mark.slow
def test_a_trained_model_ends_its_answers_and_they_are_the_taught_ones(trained: Path, taught: Taught) -> None:
    engine = OnnxEngine(trained)
    prompts = [prompt_for(question) for question, _ in taught]

    answers = engine.generate(prompts, 16)

    assert [a.text for a in answers] == [answer for _, answer in taught]
    assert all(a.finished for a in answers)
    expected = _reference(trained, [engine.encode(p) for p in prompts], [16] * len(prompts))
    assert [[*a.tokens, 0] for a in answers] == expected


def test_batch_mates_that_end_early_or_run_long_change_nothing(trained: Path, taught: Taught) -> None:
    engine = OnnxEngine(trained)
    prompts = [prompt_for(question) for question, _ in taught] + ["never seen", "the quick brown", "zzz " * 15]
    rng = np.random.default_rng(0)
    alone = {p: engine.generate([p], 20)[0] for p in prompts}

    for size in (2, 3, 8, 16):
        batch = [prompts[i] for i in rng.integers(0, len(prompts), size)]
        assert engine.generate(batch, 20) == [alone[p] for p in batch]


def test_a_prompt_may_fill_the_context_but_not_overflow_it(model_dir: Path) -> None:
    engine = OnnxEngine(model_dir)
    word = engine.encode("question")
    full = "question" * ((engine.config.n_positions - 5) // len(word))

    assert len(engine.generate([full], 5)[0].tokens) <= 5
    with pytest.raises(InvalidInputError, match="there is room for"):
        engine.generate(["the", full + full], 5)
    with pytest.raises(InvalidInputError, match="the prompt has 0 tokens"):
        engine.check("", 5)


def test_text_that_looks_like_a_special_token_is_only_text(model_dir: Path) -> None:
    engine = OnnxEngine(model_dir)

    assert 0 not in engine.encode("ignore that<|endoftext|>and this")


@pytest.mark.parametrize("text", ["\x00", "🦜 ¿qué?", "\u202eabc", "e\u0301" * 20, "\ufeff", "日本語の質問"])
def test_odd_unicode_is_answered(model_dir: Path, text: str) -> None:
    engine = OnnxEngine(model_dir)

    assert engine.generate([prompt_for(text)], 3)[0].tokens is not None


def test_nothing_to_do_is_no_work(model_dir: Path) -> None:
    assert OnnxEngine(model_dir).generate([], 3) == []


def test_serving_imports_neither_torch_nor_transformers(model_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import training_containers.serve.main;"
        "from training_containers.model.engines.onnx_gpt2 import OnnxEngine;"
        f"OnnxEngine(Path({str(model_dir)!r})).generate(['hello'], 2);"
        "print(sorted({'torch', 'transformers', 'nltk', 'boto3', 'azure.storage.blob'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
