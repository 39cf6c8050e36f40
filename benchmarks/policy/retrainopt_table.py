"""retrainopt's own 60-case table, scored on steps 12-23: its policies against ours, with the same information.

    python -m benchmarks.policy.retrainopt_table [--source retrainopt-0.4.2.tar.gz] [--json FILE]

The package's source distribution holds the case builder (examples/build_demo.py): three drifts x five quality weights
x four training prices, 24 steps, retrain on a quarter to all of the data, no delay. Steps 0-11 are history: every
candidate's loss on them is known, the exact plan over them is executed, and its last model serves at step 12. From
then on a policy sees the loss of the serving model and nothing else. Costs are divided by the optimum over 12-23 from
that model. The published means (Learned 1.174, Base 1.599, never 2.559, always 7.599) come out again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from retrainopt import (
    BaseOnlinePolicy,
    DecisionAction,
    LearnedOnlinePolicy,
    ModelAdapter,
    OnlineState,
    PlannerConfig,
    TimelineDataset,
    collect_online_training_data,
)

from benchmarks.policy.planning import Forecaster

VERSION: Final = "0.4.2"
STEPS: Final = 24
#: first scored step
ONLINE: Final = 12

#: (step trained, samples)
Model = tuple[int, int]
#: given (step, serving model, losses measured so far): samples to retrain on, 0 = keep
Policy = Callable[[int, Model, list[float]], int]


@dataclass(frozen=True)
class Case:
    """One case of the table."""

    name: str
    weight: float
    volumes: tuple[int, ...]
    loss: Callable[[int, int, int], float]  # (trained, samples, step)
    price: Callable[[int, int], float]  # (step, samples)


def case_builder(source: Path | None) -> ModuleType:
    """The package's own case builder, from its source distribution (fetched with pip when none is given)."""
    with tempfile.TemporaryDirectory() as scratch:
        if source is None:
            fetch = [sys.executable, "-m", "pip", "download", f"retrainopt=={VERSION}", "--no-binary", ":all:"]
            subprocess.run(
                [*fetch, "--no-deps", "--no-build-isolation", "-q", "-d", scratch], check=True, stdout=sys.stderr
            )
            source = next(Path(scratch).glob("retrainopt-*.tar.gz"))
        with tarfile.open(source) as archive:
            archive.extractall(scratch, filter="data")
        file = next(Path(scratch).glob("retrainopt-*/examples/build_demo.py"))
        spec = importlib.util.spec_from_file_location("retrainopt_cases", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module


def cases(builder: ModuleType) -> list[Case]:
    """The 60 cases."""

    def case(pattern: str, weight: float, multiplier: float) -> Case:
        values = builder.regime(pattern)

        @cache
        def loss(trained: int, samples: int, step: int) -> float:
            return float(builder.synthetic_loss(values, trained, samples, step))

        @cache
        def price(step: int, samples: int) -> float:
            return float(builder.synthetic_training_cost(step, samples, multiplier))

        return Case(f"{pattern}/{weight}/{multiplier}", weight, tuple(builder.VOLUMES), loss, price)

    return [
        case(pattern, weight, multiplier)
        for pattern, _, _ in builder.SCENARIOS
        for weight in builder.QUALITY_WEIGHTS
        for multiplier in builder.TRAINING_MULTIPLIERS
    ]


def optimum(case: Case, start: int, serving: Model) -> float:
    """Least cost of steps `start` to the end, knowing everything."""

    @cache
    def best(step: int, model: Model) -> float:
        if step == STEPS:
            return 0.0
        keep = case.weight * case.loss(*model, step) + best(step + 1, model)
        return min(
            [keep]
            + [
                case.price(step, n) + case.weight * case.loss(step, n, step) + best(step + 1, (step, n))
                for n in case.volumes
            ]
        )

    return best(start, serving)


class _Timeline(TimelineDataset):
    num_steps = STEPS

    def get_train_block(self, step: int) -> list[int]:
        return list(range(100))

    def get_eval_block(self, step: int) -> list[int]:
        return [step]

    def train_size(self, step: int) -> int:
        return 0 if step == 0 else 100  # step 0 has its model already


class _Losses(ModelAdapter):
    def __init__(self, case: Case) -> None:
        self._case = case

    def fit(self, train_data: Any, *, step: int, n_samples: int, random_seed: int) -> Model:
        return (step, n_samples)

    def evaluate(self, model: Model, eval_data: Any, *, step: int) -> float:
        return self._case.loss(*model, step)


@dataclass(frozen=True)
class Prefix:
    """What is known at step 12: the package's training data, the serving model and its accumulated staleness."""

    data: Any
    serving: Model
    accumulated: float


def history(case: Case) -> Prefix:
    """Plan steps 0-11 exactly with the package and execute the plan."""
    data = collect_online_training_data(
        _Timeline(),
        _Losses(case),
        PlannerConfig(n_choices=case.volumes, loss_cost_weight=case.weight, time_cost_weight=0.0),
        history_steps=ONLINE,
        initial_model=(0, 100),
        initial_reference_loss=case.loss(0, 100, 0),
        training_cost_fn=lambda step, n_samples, training_seconds, model: case.price(step, n_samples),
    )
    serving, accumulated = (0, 100), 0.0
    for step, decision in enumerate(data.decisions):
        accumulated += case.loss(*serving, step) - case.loss(*serving, serving[0])
        if decision.action == DecisionAction.RETRAIN:
            serving, accumulated = (step, decision.n_samples), 0.0
    return Prefix(data, serving, accumulated)


def run(case: Case, serving: Model, policy: Policy) -> tuple[float, int]:
    """(cost, retrains) of steps 12-23."""
    cost, retrains, measured = 0.0, 0, []
    for step in range(ONLINE, STEPS):
        measured.append(case.loss(*serving, step))
        samples = policy(step, serving, measured)
        if samples:
            cost += case.price(step, samples)
            serving, retrains = (step, samples), retrains + 1
        cost += case.weight * case.loss(*serving, step)
    return cost, retrains


def package_policy(case: Case, prefix: Prefix, online: Any) -> Policy:
    """One of the package's policies, with the features it was fitted to."""
    state = {"accumulated": prefix.accumulated}

    def decide(step: int, serving: Model, measured: list[float]) -> int:
        staleness = measured[-1] - case.loss(*serving, serving[0])
        state["accumulated"] += staleness
        seen = OnlineState(step, staleness, state["accumulated"], step - serving[0])
        decision = online.decide(seen, train_size=100)
        if decision.action != DecisionAction.RETRAIN:
            return 0
        state["accumulated"] = 0.0
        return int(decision.n_samples)

    return decide


def policies(case: Case, prefix: Prefix) -> dict[str, Policy]:
    """Every policy, fitted to the prefix only."""
    forecaster = Forecaster(case.volumes, case.weight, case.loss, case.price, ONLINE)
    return {
        "never": lambda step, serving, measured: 0,
        "always": lambda step, serving, measured: 100,
        "retrainopt Base": package_policy(case, prefix, BaseOnlinePolicy.from_plan(prefix.data.plan)),
        "retrainopt Learned": package_policy(
            case, prefix, LearnedOnlinePolicy().fit(prefix.data.states, prefix.data.decisions)
        ),
        "opportune forecast": forecaster.decide,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="the package's source distribution; default: fetched with pip")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    retrains: dict[str, list[int]] = {}
    for case in cases(case_builder(args.source)):
        prefix = history(case)
        floor = optimum(case, ONLINE, prefix.serving)
        for name, policy in policies(case, prefix).items():
            cost, count = run(case, prefix.serving, policy)
            ratios.setdefault(name, []).append(cost / floor)
            retrains.setdefault(name, []).append(count)
    print(f"{'policy':20s} {'mean J/J*':>9s} {'median':>7s} {'worst':>7s} {'retrains':>8s}")
    for name, values in sorted(ratios.items(), key=lambda item: float(np.mean(item[1]))):
        spread = f"{np.mean(values):9.3f} {np.median(values):7.3f} {np.max(values):7.3f}"
        print(f"{name:20s} {spread} {np.mean(retrains[name]):8.2f}")
    if args.json:
        args.json.write_text(json.dumps({"ratios": ratios, "retrains": retrains}))


if __name__ == "__main__":
    main()
