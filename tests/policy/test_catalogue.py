"""Rules that ship are rules that run: every deployable policy decides with numpy and onnxruntime alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from policy.catalogue import BACKTEST_ONLY, DEPLOYABLE, REFERENCE, SHIPPED, check_deployable
from policy.policies import live_policy
from policy.rules import tuned
from policy.rules.registry import PORTFOLIO, RULES
from policy.training.baselines.registry import RESEARCH
from shared.errors import InvalidInputError

#: run in a fresh process, as in a function's package: nothing but numpy and onnxruntime, and no policy.training
ONE_DECISION = """
import sys
for absent in ("river", "sklearn", "scipy", "retrainopt", "torch", "stable_baselines3", "sb3_contrib", "gymnasium",
               "pandas", "policy.training"):
    sys.modules[absent] = None
import numpy as np
from policy.catalogue import DEPLOYABLE, check_deployable
from policy.history import History
from policy.policies import live_policy

quality = np.concatenate([np.full(30, 0.8), np.full(10, 0.4)])
flat = np.full(40, 0.5)
history = History(
    step_minutes=10.0, value_usd_per_quality_hour=6.0, bleu=quality, accuracy=quality, request_rate_rps=flat,
    latency_s=flat, cpu=flat, memory=flat, price_usd_per_hour=np.tile([4.0, 3.6], (40, 1)),
    train_hours=np.array([0.16, 0.16]), retrains=(), in_flight=False,
)
for name in DEPLOYABLE:
    check_deployable(name)
    print(name, live_policy(name, static_every_slots=15).evaluate(history).action.name)
"""


def test_every_policy_that_is_offered_decides_where_only_numpy_and_onnxruntime_are() -> None:
    done = subprocess.run([sys.executable, "-c", ONE_DECISION], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    decided = dict(line.split() for line in done.stdout.splitlines())
    assert list(decided) == list(DEPLOYABLE)
    assert decided["never"] == "HOLD"
    assert decided["always"] == "RETRAIN_AZURE"


@pytest.mark.parametrize("name", [*BACKTEST_ONLY, *REFERENCE])
def test_a_policy_that_is_not_in_the_package_is_refused_with_the_names_that_run(name: str) -> None:
    for refuse in (check_deployable, lambda name: live_policy(name, static_every_slots=15)):
        with pytest.raises(InvalidInputError) as refused:
            refuse(name)
        message = str(refused.value)
        assert message.startswith(f"policy {name} cannot be deployed: its ")
        assert "not in a function's package; it runs in `opportune backtest`" in message
        assert all(offered in message for offered in DEPLOYABLE)
        assert "\n" not in message


def test_a_name_nobody_knows_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no policy named 'nonsense'; choose from: ppo, never"):
        check_deployable("nonsense")
    with pytest.raises(InvalidInputError, match=r"absent\.onnx: there is no such file"):
        check_deployable(str(tmp_path / "absent.onnx"))
    check_deployable(str(SHIPPED["ppo"]))


def test_every_research_baseline_is_known_to_the_refusal() -> None:
    assert set(BACKTEST_ONLY) == set(RESEARCH)


def test_a_name_is_checked_without_loading_a_library() -> None:
    code = (
        "import sys; from policy.catalogue import check_deployable; check_deployable('ppo')\n"
        "sys.exit(repr({'numpy', 'onnxruntime'} & set(sys.modules) or '') if 'numpy' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tuned_rule_is_always_one_that_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    among = set(RULES) - {PORTFOLIO}
    known = tuned.load()
    edges = [0.0, *known["edges"]]
    assert {tuned.best_rule_for(ratio, among) for ratio in edges} <= among
    # had another rule been best, the best of those that ship decides
    monkeypatch.setattr(tuned, "load", lambda: known | {"best": ["adwin"] * len(edges)})
    for bucket, ratio in enumerate(edges):
        chosen = tuned.best_rule_for(ratio, among)
        shipping = {rule: means[bucket] for rule, means in known["mean_ratio"].items() if rule in among}
        assert shipping[chosen] == min(shipping.values())
