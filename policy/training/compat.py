"""Names that stable-baselines3 keeps to itself and that an algorithm built on it needs, in one place.

`pyproject.toml` allows versions from 2.7 up to 3, and tests/policy/training/test_compat.py fails where a name is gone.
The library means `_setup_model` and `_excluded_save_params` to be overridden, as `policy.training.ppo.auxiliary` does;
what is read here has no public counterpart.
"""

from __future__ import annotations

from typing import Any


def learning_rate(model: Any) -> float:
    """The learning rate that the schedule gives for this update."""
    return float(model.lr_schedule(model._current_progress_remaining))


def updates_done(model: Any) -> int:
    """How many passes over rollouts the model has been updated with."""
    return int(model._n_updates)
