"""What `opportune trace build` runs in each process: fine-tune one model with the training container's own code."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from policy.training.simulator.matrices import Question, Recipe, Row, Task

BATCH_SIZE = 32
SMALL = "small"


def make_base(recipe: Recipe, questions: Sequence[Question], folder: Path) -> None:
    """The model of step 0: a small one that learns the oldest questions, or a given one as it is."""
    import json
    import shutil

    from training_containers.finetune import make_base as base
    from training_containers.finetune import torch_model as model

    if recipe.model != SMALL:
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(model.resolve_base(recipe.model, Path(scratch)), folder, dirs_exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps({"base_model": recipe.model}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "oldest.jsonl"
        file.write_text("".join(json.dumps({"question": q, "answers": list(a)}) + "\n" for q, a in questions))
        base.make_base(folder, questions=str(file), first=len(questions), seed=recipe.seed)


def run_task(task: Task) -> Row:
    """Fine-tune from the base model (step 0: not at all) and score on every later step's traffic."""
    import torch

    from shared.contracts import FeedbackPair
    from training_containers.finetune.loop.encoding import encode_pairs, load_tokenizer
    from training_containers.finetune.loop.evaluation import answer_all
    from training_containers.finetune.loop.trainer import Plan, fit, quiet
    from training_containers.finetune.torch_model import load_model, save_model_files
    from training_containers.model.scoring import bleu1, exact_match

    begin = time.monotonic()
    torch.set_num_threads(1)
    quiet()
    base = Path(task.base)
    with tempfile.TemporaryDirectory() as scratch:
        tuned = base
        if task.learn:
            model = load_model(base)
            pairs = [FeedbackPair(question=q, answers=a[:32], received_s=0.0) for q, a in task.learn]
            examples, _ = encode_pairs(load_tokenizer(base), pairs, model.config.eos_token_id, model.config.n_positions)
            plan = Plan(
                epochs=task.recipe.epochs,
                learning_rate=task.recipe.learning_rate,
                batch_size=BATCH_SIZE,
                seed=task.recipe.seed * 1000 + task.step,
                stop_loss=0.01,
                max_seconds=3600.0,
                checkpoint_seconds=3600.0,
                checkpoints=Path(scratch) / "checkpoints",
                fingerprint="row",
            )
            fit(model, examples, plan, lambda: False)
            tuned = Path(scratch) / "tuned"
            save_model_files(model, base, tuned)
        said = answer_all(tuned, [question for question, _ in task.ask])
    scored = [
        (bleu1(answer, right), exact_match(answer, right)) for answer, (_, right) in zip(said, task.ask, strict=True)
    ]
    return Row(
        step=task.step,
        bleu=tuple(sum(scored[i][0] for i in sample) / len(sample) for sample in task.traffic),
        accuracy=tuple(sum(scored[i][1] for i in sample) / len(sample) for sample in task.traffic),
        seconds=time.monotonic() - begin,
    )
