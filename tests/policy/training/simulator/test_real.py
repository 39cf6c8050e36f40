from pathlib import Path

import numpy as np
import pytest

from policy.training.simulator.cost import optimal_plan
from policy.training.simulator.trace import load

REAL = Path(__file__).parents[4] / "policy" / "training" / "simulator" / "real"
FILES = sorted(REAL.glob("*.npz"))


def test_there_are_several_and_each_says_how_it_was_made() -> None:
    assert len(FILES) >= 2
    told = (REAL / "README.md").read_text()
    for file in FILES:
        row = next(line for line in told.splitlines() if file.name in line)
        assert "--seed" in row


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_a_real_model_gets_worse_with_age_and_a_retrain_pays(file: Path) -> None:
    assert file.stat().st_size < 100_000
    trace = load(file)
    fresh = np.diag(trace.quality)
    old = np.array([trace.quality[i, i + 8] for i in range(trace.steps - 8)])
    assert fresh[: len(old)].mean() > old.mean() + 0.2
    assert any(optimal_plan(trace)[1])
