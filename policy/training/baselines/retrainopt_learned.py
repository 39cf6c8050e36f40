"""The Learned policy of the retrainopt package (Yang & Mathioudakis, 2026), called as it is.

The package plans the warm-up exactly, fits a random forest to imitate that plan on (staleness, signed sum since the
last retrain, steps since it), and the forest decides from then on. Its model has no delay and no sample sizes to
choose from here: a retrain uses all data and is priced at the warm-up's cheapest cloud.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from retrainopt import (
    DecisionAction,
    LearnedOnlinePolicy,
    ModelAdapter,
    OnlineState,
    PlannerConfig,
    TimelineDataset,
    collect_online_training_data,
)

from policy.history import Decider, History
from policy.rules.registry import make
from policy.training.simulator.trace import Trace


class _Steps(TimelineDataset):
    """The warm-up as a timeline whose data blocks are their own step numbers; step 0 has its model already."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    @property
    def num_steps(self) -> int:
        return self._steps

    def get_train_block(self, step: int) -> list[int]:
        return [step]

    def get_eval_block(self, step: int) -> list[int]:
        return [step]

    def train_size(self, step: int) -> int:
        return 1


class _Matrix(ModelAdapter):
    """`Training` at step i yields model i; its loss at step j stands in the warm-up's quality matrix."""

    def __init__(self, loss: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        self._loss = loss

    def fit(self, train_data: list[int], *, step: int, n_samples: int, random_seed: int) -> int:
        return step

    def evaluate(self, model: int, eval_data: list[int], *, step: int) -> float:
        return float(self._loss[model, step])


class RetrainoptLearned:
    """The package's random forest, fitted to the warm-up. Before that is over, the rule tuned on training traces."""

    name = "retrainopt-learned"

    def __init__(self, warm_up: Trace) -> None:
        self._until = warm_up.steps
        self._before: Decider = make("rule")
        step_value = warm_up.value_usd_per_quality_hour * warm_up.step_minutes / 60.0
        prices = warm_up.job_usd.min(axis=1) / step_value
        loss = np.clip(1.0 - warm_up.quality, 0.0, 1.0)
        data = collect_online_training_data(
            _Steps(warm_up.steps),
            _Matrix(loss),
            PlannerConfig(n_choices=(1.0,), time_cost_weight=0.0),
            history_steps=warm_up.steps,
            initial_model=0,
            initial_reference_loss=float(loss[0, 0]),
            training_cost_fn=lambda step, n_samples, training_seconds, model: float(prices[step]),
        )
        self._policy = LearnedOnlinePolicy().fit(data.states, data.decisions)

    def reset(self, seed: int) -> None:
        """The forest keeps nothing between steps."""
        self._before.reset(seed)

    def decide(self, history: History) -> int:
        """Ask the forest; it is asked only while no job is in flight."""
        if history.t < self._until:
            return self._before.decide(history)
        trained, live = (max(0, step) for step in history.serving)
        measured = history.quality[live:]
        seen = measured[np.isfinite(measured)]
        if not len(seen):
            return 0
        reference = self._reference(history, trained, live)
        state = OnlineState(
            step=history.t,
            current_staleness=float(reference - seen[-1]),
            accumulated_staleness=float((reference - seen).sum()),
            time_since_last_retrain=history.t - trained,
        )
        retrain = self._policy.decide(state, train_size=1).action == DecisionAction.RETRAIN
        return history.cheapest_action() if retrain else 0

    @staticmethod
    def _reference(history: History, trained: int, live: int) -> float:
        """Quality on the step the model was trained at, where old models are re-evaluated; else when it went live."""
        if history.former_model_quality is not None:
            at_training = float(history.former_model_quality[-1, trained])
            if np.isfinite(at_training):
                return at_training
        since = history.quality[live:]
        return float(since[np.isfinite(since)][0])
