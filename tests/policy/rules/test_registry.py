import subprocess
import sys

import numpy as np
import pytest

from policy.history import History, Retrain
from policy.rules.registry import make
from shared.errors import InvalidInputError


def history(steps: int, *retrains: Retrain, step_minutes: float = 10.0, quality: float = 0.8) -> History:
    flat = np.full(steps, quality)
    return History(
        step_minutes=step_minutes,
        value_usd_per_quality_hour=6.0,
        bleu=flat,
        accuracy=flat,
        request_rate_rps=flat,
        latency_s=flat,
        cpu=flat,
        memory=flat,
        price_usd_per_hour=np.tile([3.0, 2.0], (steps, 1)),
        train_hours=np.array([0.5, 0.5]),
        retrains=retrains,
        in_flight=False,
    )


def starts(name: str, steps: int, **parameters: object) -> list[int]:
    """Steps at which the rule retrains when each job is live at the next step."""
    decider = make(name, **parameters)
    decider.reset(0)
    retrains: list[Retrain] = []
    for t in range(steps):
        if decider.decide(history(t + 1, *retrains)):
            retrains.append(Retrain(started=t, cloud=1, live=t + 1, cost_usd=1.0))
    return [retrain.started for retrain in retrains]


def test_never_never_retrains_and_always_retrains_at_every_free_step() -> None:
    assert starts("never", 20) == []
    assert starts("always", 5) == [0, 1, 2, 3, 4]


def test_static_every_15_minutes_waits_for_the_next_whole_step() -> None:
    assert starts("static", 7) == [2, 4, 6]  # 10-minute steps
    assert starts("static", 7, every_slots=3) == [3, 6]


def test_static_counts_paper_minutes() -> None:
    decider = make("static")
    assert next(t for t in range(40) if decider.decide(history(t + 1, step_minutes=1.0))) == 15


def test_periodic_takes_its_period_and_zero_means_never() -> None:
    assert starts("periodic", 13, period=5) == [5, 10]
    assert starts("periodic", 200, period=0) == []


def test_the_job_goes_to_the_cloud_that_is_cheaper_now() -> None:
    assert make("always").decide(history(3)) == 2


def test_an_unknown_rule_or_parameter_is_one_clear_line() -> None:
    with pytest.raises(InvalidInputError, match=r"no rule named 'nope'; choose from: .*static"):
        make("nope")
    with pytest.raises(InvalidInputError, match="rule periodic: periodic has no parameter often; it has: period"):
        make("periodic", often=3)
    with pytest.raises(InvalidInputError, match="rule static: static retrains every"):
        make("static", every_slots=0)


def test_simple_rules_need_only_numpy() -> None:
    code = (
        "import sys; from policy.rules.registry import make\n"
        "for name in ('never', 'always', 'static', 'periodic'): make(name)\n"
        "heavy = {'torch', 'river', 'sklearn', 'scipy', 'retrainopt', 'pandas'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
