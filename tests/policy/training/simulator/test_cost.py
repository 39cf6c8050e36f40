"""The cost of a run and the optimum: checked against brute force and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from policy.history import History
from policy.training.simulator.cost import optimal_plan, run_cost
from policy.training.simulator.replay import replay
from policy.training.simulator.trace import Trace
from shared.errors import InvalidInputError


def make(steps: int, seed: int, train_hours: tuple[float, float] = (1 / 6, 2 / 6), price: float = 2.0) -> Trace:
    """A random trace, quality anything."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((2, steps, steps)).astype(np.float32)
    matrix[:, *np.tril_indices(steps, -1)] = np.nan
    return Trace(
        bleu=matrix[0],
        accuracy=matrix[1],
        request_rate_rps=np.full(steps, 20.0, np.float32),
        latency_s=np.full(steps, 0.1, np.float32),
        cpu=np.full(steps, 0.5, np.float32),
        memory=np.full(steps, 0.5, np.float32),
        price_usd_per_hour=(price * rng.random((steps, 2))).astype(np.float32),
        train_hours=np.array(train_hours, np.float32),
        step_minutes=10.0,
        value_usd_per_quality_hour=6.0,
        noise_sd=0.03,
    )


def test_cost_by_hand() -> None:
    trace = make(4, 0, (2 / 6 - 1e-6, 1 / 6 - 1e-6))
    q = trace.quality
    score = run_cost(trace, [0, 1, 0, 2])
    # model 1 goes live at step 3; the job of step 3 never serves but is paid
    lost = (1 - q[0, 0]) + (1 - q[0, 1]) + (1 - q[0, 2]) + (1 - q[1, 3])
    paid = trace.price_usd_per_hour[1, 0] * trace.train_hours[0] + trace.price_usd_per_hour[3, 1] * trace.train_hours[1]
    assert score.cost_usd == pytest.approx(6.0 * 10 / 60 * lost + paid, rel=1e-6)
    assert score.retrains == 2
    assert score.mean_quality == pytest.approx((q[0, 0] + q[0, 1] + q[0, 2] + q[1, 3]) / 4)


def test_retrain_while_in_flight_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="step 2 while a job runs until step 3"):
        run_cost(make(4, 0, (2 / 6 - 1e-6, 1 / 6)), [0, 1, 2, 0])


@pytest.mark.parametrize("decisions", [[0, 0, 0], [0, 0, 0, 3]])
def test_malformed_decisions_are_refused(decisions: list[int]) -> None:
    with pytest.raises(InvalidInputError):
        run_cost(make(4, 0), decisions)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimal_plan_equals_exhaustive_search(seed: int) -> None:
    trace = make(7, seed, (1 / 6 - 1e-6, 3 / 6 - 1e-6), price=4.0)
    costs = []
    for decisions in itertools.product((0, 1, 2), repeat=7):
        try:
            costs.append(run_cost(trace, decisions).cost_usd)
        except InvalidInputError:
            continue
    best, decisions = optimal_plan(trace)
    assert best == pytest.approx(min(costs))
    assert run_cost(trace, decisions).cost_usd == pytest.approx(best)


class Recorder:
    """Retrains at fixed steps and keeps every history it was shown."""

    name = "recorder"

    def __init__(self, at: tuple[int, ...]) -> None:
        self.at, self.seen = at, list[History]()

    def reset(self, seed: int) -> None:
        self.seen = []

    def decide(self, history: History) -> int:
        self.seen.append(history)
        return int(history.t in self.at)


def test_replay_shows_the_past_only_and_never_asks_while_a_job_runs() -> None:
    trace = make(12, 3, (3 / 6 - 1e-6, 1 / 6))
    decider = Recorder((2, 3, 6))
    decisions = replay(trace, decider, seed=1)
    assert decisions == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert [h.t for h in decider.seen] == [0, 1, 2, 5, 6, 9, 10, 11]
    last = decider.seen[-1]
    assert last.serving == (6, 9)
    assert last.former_model_quality is not None and last.former_model_quality.shape == (3, 12)
    assert np.isnan(last.former_model_quality[2, :6]).all()
    # the serving model's re-evaluation is the measurement itself
    np.testing.assert_allclose(last.former_model_quality[2, 9:], last.quality[9:])


def test_measurement_noise_has_the_stated_sd_and_the_seed_repeats_it() -> None:
    trace = make(200, 4)
    first, again, other = Recorder(()), Recorder(()), Recorder(())
    replay(trace, first, seed=7)
    replay(trace, again, seed=7)
    replay(trace, other, seed=8)
    noise = first.seen[-1].quality - trace.quality[0]
    assert 0.025 < noise.std() < 0.035
    np.testing.assert_array_equal(first.seen[-1].quality, again.seen[-1].quality)
    assert not np.array_equal(first.seen[-1].quality, other.seen[-1].quality)
