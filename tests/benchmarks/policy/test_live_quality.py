"""What a live service measures, beside what a trace can say."""

from __future__ import annotations

import numpy as np

from benchmarks.policy.live_quality import run


def test_who_looks_at_nothing_is_the_same_under_every_window_and_delay_costs_who_looks() -> None:
    jobs = [("sudden", 900_000 + k) for k in range(12)]
    runs = [run(job, ["never", "page-hinkley"], [None, 1, 16], None) for job in jobs]
    never, looks = (np.array([r[policy] for r in runs])[:, :, 0] for policy in ("never", "page-hinkley"))
    assert (never == never[:, :1]).all()
    # a rule that looks at the serving model only does not need the others
    np.testing.assert_array_equal(looks[:, 0], looks[:, 1])
    assert (looks[:, 2] != looks[:, 1]).any()
    assert (looks >= 1.0).all()


def test_fewer_labels_are_more_noise() -> None:
    """A rule meets the noise of the answers, not the trace's: with a million a step it sees what is."""
    job = ("stable", 900_005)
    sure, blind = (run(job, ["threshold"], [1], labels)["threshold"][0][1] for labels in (1_000_000, 1))
    assert sure == 0.0
    assert blind > 0.0
