"""The probe benchmark lives traces as they are scored elsewhere, and decides as `ppo-probe` does."""

from __future__ import annotations

import numpy as np

from benchmarks.policy.probe import FIRST_SEED, live
from benchmarks.policy.validation import network_of
from policy.training.ppo.evaluate import ratios
from policy.training.simulator.generators import generate
from policy.training.simulator.pool import Pool


def test_without_probes_it_is_the_network_alone_and_a_probe_costs_its_price() -> None:
    network = network_of("ppo")
    pool = Pool(generate(family, FIRST_SEED + k) for family in ("sudden", "recurring") for k in range(8))
    alone, probes, retrains = live(pool, network, unsure=(1.0, 1.0))
    expected, counted = ratios(pool, "multistream", network.most_probable, FIRST_SEED)
    np.testing.assert_allclose(alone, expected)
    assert (probes, retrains) == (0.0, counted.mean())
    paid, bought, _ = live(pool, network, price_share=0.1)
    free, asked, _ = live(pool, network, price_share=0.0)
    assert bought == asked > 0.0
    assert (paid >= free).all()
    assert (paid > free).any()
