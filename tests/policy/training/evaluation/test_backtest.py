import itertools
from pathlib import Path

import numpy as np
import pytest

from policy.training.baselines.registry import BASELINES, NETWORKS, POLICIES, decider_for, make
from policy.training.baselines.warm_up import WarmedUp, warm_up_of
from policy.training.evaluation.backtest import OPTIMAL, Run, backtest
from policy.training.simulator.cost import run_cost
from policy.training.simulator.generators import generate
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace, load
from shared.errors import InvalidInputError

RULES = ["never", "always", "static", "cusum", "regret", "oracle"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("traces")
    paths = []
    for family in ("gradual", "sudden", "stable"):
        paths.append(str(folder / f"{family}.npz"))
        generate(family, 5, steps=60).save(Path(paths[-1]))
    return paths


def without_timing(run: Run) -> dict[str, object]:
    return {key: value for key, value in run.to_json().items() if key != "seconds_per_decision"}


def test_runs_can_be_scored_again_from_their_decisions(files: list[str]) -> None:
    runs = backtest(files, RULES, POLICIES, workers=1)
    assert [(run.trace, run.policy) for run in runs] == [(file, rule) for file in files for rule in RULES]
    for run in runs:
        trace = load(Path(run.trace))
        again = run_cost(trace, run.decisions)
        assert again.cost_usd == pytest.approx(run.cost_usd)
        assert again.retrains == run.retrains
        assert again.mean_quality == pytest.approx(run.mean_quality)
        assert run.cost_usd >= run.optimal_cost_usd - 1e-9
        assert len(run.decisions) == trace.steps


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_policy_takes_the_shortest_of_traces(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "short.npz"
    generate("sudden", 5, steps=60).cut(steps).save(path)
    for run in backtest([str(path)], [*NETWORKS, *BASELINES, OPTIMAL], POLICIES, workers=1):
        assert len(run.decisions) == steps
        assert run.cost_usd >= run.optimal_cost_usd - 1e-9


def test_decisions_are_zero_while_a_job_is_in_flight(files: list[str]) -> None:
    for run in backtest(files, ["always"], POLICIES, workers=1):
        trace = load(Path(run.trace))
        starts = [(t, action) for t, action in enumerate(run.decisions) if action]
        for (t, action), (following, _) in itertools.pairwise(starts):
            assert following >= t + trace.delays[action - 1]


def test_processes_and_order_change_nothing(files: list[str]) -> None:
    serial, parallel = (backtest(files, ["never", "regret"], POLICIES, seed=3, workers=n) for n in (1, 2))
    assert [without_timing(run) for run in serial] == [without_timing(run) for run in parallel]


def test_a_bad_file_or_policy_is_found_before_anything_runs(files: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"nothing")
    done: list[int] = []
    with pytest.raises(InvalidInputError, match=r"broken\.npz"):
        backtest([*files, str(broken)], ["never"], POLICIES, workers=1, progress=done.append)
    with pytest.raises(InvalidInputError, match="no such policy"):
        backtest(files, ["never", "nonsense"], POLICIES, workers=1, progress=done.append)
    assert done == []


def changed_after_warm_up(trace: Trace) -> Trace:
    """The same first quarter, another future."""
    bleu = trace.bleu.copy()
    quarter = trace.steps // 4
    bleu[:, quarter:] = np.where(np.isnan(bleu[:, quarter:]), np.nan, 0.01)
    return Trace(**{**{k: getattr(trace, k) for k in Trace.__dataclass_fields__}, "bleu": bleu})


@pytest.mark.parametrize("name", ["periodic", "cara-t"])
def test_tuning_on_the_warm_up_sees_nothing_after_it(name: str) -> None:
    trace = generate("gradual", 3, steps=80)
    tuned, other = (WarmedUp(name, warm_up_of(t), make) for t in (trace, changed_after_warm_up(trace)))
    assert tuned.parameters == other.parameters


def test_retrainopt_learns_from_the_warm_up_only() -> None:
    trace = generate("gradual", 3, steps=80)
    other = changed_after_warm_up(trace)
    decisions = [replay(trace, decider_for("retrainopt-learned", t)) for t in (trace, other)]
    assert decisions[0] == decisions[1]
    assert run_cost(trace, decisions[0]).cost_usd > 0
