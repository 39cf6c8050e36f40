"""A matrix built by the workers of a local Ray cluster is the one that this process builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from policy.training.simulator.matrices import Question, Recipe, Row, Task, build

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

ROOT = Path(__file__).parents[4]
RECIPE = Recipe(questions_sha256="0" * 64, model="small", steps=4, initial=20, per_step=10, eval_pairs=40)
QUESTIONS: list[Question] = [(f"question {n}", (f"answer {n}",)) for n in range(50)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home folder
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",  # of this machine alone
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    try:
        yield
    finally:
        ray.shutdown()


def make_base(recipe: Recipe, questions: Sequence[Question], folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")


def memorise(task: Task) -> Row:
    """The perfect learner: right on exactly what it learnt. Says which process it ran in."""
    import os

    known = {question for question, _ in task.learn}
    right = tuple(float(np.mean([task.ask[i][0] in known for i in sample])) for sample in task.traffic)
    (Path(task.base).parent / f"ran-{task.step}").write_text(str(os.getpid()))
    return Row(task.step, right, right, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(600)  # starting a cluster on busy cores takes a minute
@pytest.mark.usefixtures("cluster")
def test_rows_are_trained_by_the_cluster_and_make_the_same_matrix(tmp_path: Path) -> None:
    import os

    here = build(RECIPE, QUESTIONS, tmp_path / "local", make_base, memorise)
    reported: list[tuple[int, int]] = []
    there = build(
        RECIPE,
        QUESTIONS,
        tmp_path / "ray",
        make_base,
        memorise,
        executor="ray",
        progress=lambda done, of, left: reported.append((done, of)),
    )
    np.testing.assert_array_equal(there, here)
    assert reported == [(done, 4) for done in (1, 2, 3, 4)]
    processes = {int((tmp_path / "ray" / f"ran-{step}").read_text()) for step in range(4)}
    assert os.getpid() not in processes
