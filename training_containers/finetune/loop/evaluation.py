"""Evaluation: answer quality on a set of labelled pairs, measured with the engine that serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from shared.contracts import FeedbackPair, Metrics
from shared.errors import InvalidInputError
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.prompt import MAX_NEW_TOKENS, prompt_for
from training_containers.model.scoring import bleu1, exact_match, f1

_BATCH: Final = 64


def answer_all(model_dir: Path, questions: Sequence[str], check: Callable[[], None] = lambda: None) -> list[str]:
    """The model's greedy answer to each question; a question too long for the model gets an empty one.

    `check` is called between batches and may raise to stop.
    """
    engine = OnnxEngine(model_dir)
    prompts = [prompt_for(question) for question in questions]
    answers = [""] * len(prompts)
    fitting = sorted((i for i, p in enumerate(prompts) if _fits(engine, p)), key=lambda i: len(prompts[i]))
    for start in range(0, len(fitting), _BATCH):
        check()
        batch = fitting[start : start + _BATCH]
        generated = engine.generate([prompts[i] for i in batch], MAX_NEW_TOKENS)
        for i, answer in zip(batch, generated, strict=True):
            answers[i] = answer.text
    return answers


def _fits(engine: OnnxEngine, prompt: str) -> bool:
    try:
        engine.check(prompt, MAX_NEW_TOKENS)
    except InvalidInputError:
        return False
    return True


def evaluate(model_dir: Path, pairs: Sequence[FeedbackPair], check: Callable[[], None] = lambda: None) -> Metrics:
    """Mean BLEU-1, exact match, F1 and ROUGE-L over `pairs`, each against its best answer."""
    return score(answer_all(model_dir, [p.question for p in pairs], check), [p.answers for p in pairs])


def score(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> Metrics:
    """Mean metrics of predictions against their answers."""
    rows = list(zip(predictions, answers, strict=True))
    rouge = RougeScorer(["rougeL"], tokenizer=DefaultTokenizer())

    def mean(metric: Callable[[str, Sequence[str]], float]) -> float:
        return sum(metric(said, right) for said, right in rows) / len(rows)

    return Metrics(
        bleu1=min(1.0, mean(bleu1)),
        exact_match=mean(exact_match),
        f1=mean(f1),
        rouge_l=mean(lambda said, right: float(rouge.score_multi(right, said)["rougeL"].fmeasure)),
        examples=len(rows),
    )
