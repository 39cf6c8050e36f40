"""Attributions that can be checked by hand, and counterfactuals in dollars."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy.catalogue import REFERENCE, SHIPPED
from policy.explain import INPUTS, as_when_new, expected_costs, explained, shapley
from policy.history import History, Retrain
from policy.observation.follow import build_many
from policy.observation.multistream import FEATURES
from policy.policies import load_policy
from shared.contracts import Action


def history(quality: list[float], latency: list[float] | None = None) -> History:
    q = np.asarray(quality)
    n = len(q)
    return History(
        step_minutes=10.0,
        value_usd_per_quality_hour=6.0,
        bleu=q,
        accuracy=q,
        request_rate_rps=np.full(n, 3.0),
        latency_s=np.full(n, 0.05) if latency is None else np.asarray(latency),
        cpu=np.full(n, 0.3),
        memory=np.full(n, 0.4),
        price_usd_per_hour=np.tile([3.0, 1.5], (n, 1)),
        train_hours=np.array([1 / 6 - 1e-7, 1 / 3 - 1e-7]),
        retrains=(),
        in_flight=False,
    )


def test_a_sum_gives_each_player_its_share() -> None:
    weights = np.array([0.5, -1.0, 2.0, 0.0])
    np.testing.assert_allclose(shapley(lambda members: members @ weights, 4), weights, atol=1e-12)


def test_players_who_only_win_together_share_equally() -> None:
    # the glove game: players 0 and 1 hold a left glove each, player 2 the only right one
    values = shapley(lambda m: ((m[:, 0] | m[:, 1]) & m[:, 2]).astype(float), 3)
    np.testing.assert_allclose(values, [1 / 6, 1 / 6, 4 / 6], atol=1e-12)


@pytest.mark.parametrize("name", [*SHIPPED, *REFERENCE])
def test_attributions_add_up_and_name_the_cause(name: str) -> None:
    policy = load_policy(name)
    dropped = history([0.85] * 20 + [0.45] * 12)
    evaluation, shares = explained(policy, dropped)
    action = evaluation.action
    assert action is not Action.HOLD
    assert evaluation == policy.evaluate(dropped)
    assert tuple(shares) == INPUTS
    now = policy.evaluate(dropped).probabilities[action]
    then = policy.evaluate(history([0.85] * 32)).probabilities[action]
    assert sum(shares.values()) == pytest.approx(now - then, abs=0.02)
    assert max(shares, key=lambda key: abs(shares[key])) == "accuracy"


def test_a_mixture_of_two_observations_is_that_of_a_history_with_some_inputs_changed() -> None:
    rng = np.random.default_rng(3)
    live = Retrain(4, 0, 6, 1.0)
    moved = dataclasses.replace(
        history(list(rng.uniform(0.3, 0.9, 30)), list(rng.uniform(0.04, 0.4, 30))),
        cpu=rng.random(30),
        memory=rng.random(30),
        request_rate_rps=rng.uniform(1.0, 90.0, 30),
        retrains=(live,),
    )
    now, then = build_many([moved, as_when_new(moved)])
    new = slice(6, 9)  # the first measurements of the model that went live at step 6

    def as_it_was(series: np.ndarray) -> np.ndarray:
        return np.where(np.arange(30) > 8, series[new].mean(), series)

    latency_only = dataclasses.replace(moved, latency_s=as_it_was(moved.latency_s))
    quality_only = dataclasses.replace(moved, bleu=as_it_was(moved.bleu), accuracy=as_it_was(moved.accuracy))
    got = build_many([latency_only, quality_only])
    for row, words in zip(got, (("latency",), ("cpu", "memory", "rate", "latency")), strict=True):
        named = np.array([f.name.partition("_")[0] in words for f in FEATURES])
        frozen = named if words == ("latency",) else ~named
        np.testing.assert_allclose(row, np.where(frozen, then, now), atol=1e-9)
        assert not np.allclose(row, now)


def test_nothing_changed_nothing_attributed() -> None:
    steady = history([0.8] * 32)
    assert all(abs(v) < 1e-6 for v in explained(load_policy("ppo-paper"), steady)[1].values())


def test_a_rule_has_no_attributions() -> None:
    assert explained(load_policy("never"), history([0.8] * 5))[1] == {}


def test_the_counterfactual_by_hand() -> None:
    costs = expected_costs(history([0.8] * 10 + [0.5] * 10), horizon_steps=12)
    assert costs is not None
    assert costs.fresh_quality == pytest.approx(0.8)
    assert costs.retrain_usd == pytest.approx(0.5)
    assert costs.lost_usd == pytest.approx(10 * 0.3)
    hold, aws, azure = costs.by_action
    assert hold == pytest.approx(12 * 0.5)
    assert aws == pytest.approx(0.5 + 1 * 0.5 + 11 * 0.2, rel=1e-5)
    assert azure == pytest.approx(0.5 + 2 * 0.5 + 10 * 0.2, rel=1e-5)


def test_nothing_measured_no_counterfactual() -> None:
    blank = dataclasses.replace(history([0.8] * 3), bleu=np.full(3, np.nan))
    assert expected_costs(blank) is None


def test_a_warm_function_explains_as_a_cold_one_does() -> None:
    warm = load_policy("ppo")
    quality = [0.85] * 12 + [0.5] * 28
    for t in range(5, 40):
        retrains = (Retrain(14, 1, 20 if t >= 20 else None, 1.0),) if t > 14 else ()
        now = dataclasses.replace(history(quality[: t + 1]), retrains=retrains)
        evaluation, shares = explained(warm, now)
        cold, expected = explained(load_policy("ppo"), now)
        assert evaluation.probabilities == pytest.approx(cold.probabilities, abs=1e-6)
        assert shares == pytest.approx(expected, abs=1e-6)
