import numpy as np

from benchmarks.policy.planning import Forecaster


def test_the_forecast_rule_retrains_when_it_pays_and_not_before() -> None:
    def loss(trained: int, samples: int, step: int) -> float:
        return 0.1 + 0.02 * (step - trained) + 0.1 * (samples < 100)

    def price(step: int, samples: int) -> float:
        return samples / 100.0

    rule = Forecaster((50, 100), 4.0, loss, price, 12)
    assert rule.decide(12, (0, 100), [0.1]) == 0
    assert rule.decide(12, (0, 100), [0.9]) == 100


def test_a_retrain_that_never_pays_is_never_made() -> None:
    rule = Forecaster((100,), 0.1, lambda i, n, j: 0.1 + 0.01 * (j - i), lambda t, n: 50.0, 12)
    assert not np.any([rule.decide(step, (0, 100), [0.3]) for step in range(12, 24)])
