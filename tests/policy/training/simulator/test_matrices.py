import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from policy.training.simulator.matrices import (
    Question,
    Recipe,
    Row,
    Task,
    as_trace,
    build,
    popularity,
    traffic_sample,
    training_sample,
)
from policy.training.simulator.trace import load
from shared.errors import InvalidInputError

RECIPE = Recipe(
    questions_sha256="0" * 64,
    model="small",
    steps=5,
    initial=20,
    per_step=10,
    train_pairs=25,
    eval_pairs=40,
    half_life=1,
)
QUESTIONS: list[Question] = [(f"question {n}", (f"answer {n}",)) for n in range(60)]


def make_base(recipe: Recipe, questions: Sequence[Question], folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")


def memorise(task: Task) -> Row:
    """The perfect learner: right on exactly what it learnt (the base model: on the oldest twenty)."""
    known = {question for question, _ in task.learn} or {question for question, _ in QUESTIONS[:20]}
    right = [float(task.ask[i][0] in known) for sample in task.traffic for i in sample]
    scores = np.array(right).reshape(len(task.traffic), -1).mean(axis=1)
    with (Path(task.base).parent / "trained.log").open("a") as log:
        log.write(f"{task.step}\n")
    return Row(task.step, tuple(scores), tuple(scores / 2), 0.0)


def trained(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "trained.log").read_text().split()]


def test_a_model_is_good_when_new_and_loses_to_what_came_later(tmp_path: Path) -> None:
    bleu, accuracy = build(RECIPE, QUESTIONS, tmp_path, make_base, memorise)
    assert bleu.shape == (5, 5)
    assert np.isnan(bleu[np.tril_indices(5, -1)]).all()
    assert np.diag(bleu).min() > 0.5
    assert bleu[0, 0] == 1.0
    assert (bleu[:-2, -1] < np.diag(bleu)[:-2] - 0.2).all()
    np.testing.assert_allclose(accuracy, bleu / 2)


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def dies_at_three(task: Task) -> Row:
        if task.step == 3:
            raise KeyboardInterrupt
        return memorise(task)

    with pytest.raises(KeyboardInterrupt):
        build(RECIPE, QUESTIONS, tmp_path, make_base, dies_at_three)
    told: list[tuple[int, int]] = []
    resumed, _ = build(
        RECIPE, QUESTIONS, tmp_path, make_base, memorise, progress=lambda done, of, left: told.append((done, of))
    )
    assert trained(tmp_path) == [0, 1, 2, 3, 4]
    assert told == [(4, 5), (5, 5)]
    straight, _ = build(RECIPE, QUESTIONS, tmp_path / "other", make_base, memorise)
    np.testing.assert_array_equal(resumed, straight)


def test_rows_of_another_recipe_are_not_mixed_in(tmp_path: Path) -> None:
    build(RECIPE, QUESTIONS, tmp_path, make_base, memorise)
    other = Recipe(**{**RECIPE.__dict__, "seed": 1, "epochs": 3})
    with pytest.raises(InvalidInputError, match=r"another build \(epochs, seed differ\); remove it"):
        build(other, QUESTIONS, tmp_path, make_base, memorise)


def test_too_few_questions_are_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"59 questions are too few: .* make 60; lower --steps"):
        build(RECIPE, QUESTIONS[:59], tmp_path / "none", make_base, memorise)
    assert not (tmp_path / "none").exists()


def test_ray_is_asked_for_by_name_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInputError, match="pip install ray, or use --executor local"):
        build(RECIPE, QUESTIONS, tmp_path, make_base, memorise, executor="ray")


def test_old_questions_are_asked_less_and_the_future_never() -> None:
    shares = popularity(RECIPE, 3)
    assert len(shares) == 50
    assert shares.sum() == pytest.approx(1.0)
    assert shares[-1] / shares[0] == pytest.approx(8.0)  # three half-lives
    for step in range(5):
        for sample in (traffic_sample(RECIPE, step), training_sample(RECIPE, step)):
            assert sample.max() < RECIPE.appeared(step)
    learnt = training_sample(RECIPE, 4)
    assert len(set(learnt)) == len(learnt) == 25


def test_the_trace_can_be_loaded(tmp_path: Path) -> None:
    bleu, accuracy = build(RECIPE, QUESTIONS, tmp_path / "parts", make_base, memorise)
    trace = as_trace(
        bleu,
        accuracy,
        step_minutes=10.0,
        value_usd_per_quality_hour=6.0,
        price_usd_per_hour=(4.0, 3.0),
        train_hours=(0.16, 0.16),
        name="real",
    )
    trace.save(tmp_path / "real.npz")
    assert load(tmp_path / "real.npz").sha256() == trace.sha256()
