"""The names of stable-baselines3 that are not public are still there."""

from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm

from policy.training.compat import learning_rate, updates_done


def test_the_hooks_that_the_auxiliary_phase_overrides_exist() -> None:
    assert callable(MaskablePPO._setup_model)
    assert callable(BaseAlgorithm._excluded_save_params)


def test_schedule_and_updates_are_read_off_a_model() -> None:
    model = MaskablePPO.__new__(MaskablePPO)
    model.lr_schedule = lambda left: 2.0 * left
    model._current_progress_remaining, model._n_updates = 0.25, 7
    assert (learning_rate(model), updates_done(model)) == (0.5, 7)
    # and the library fills them by these names
    assert {"_current_progress_remaining", "_n_updates"} <= set(BaseAlgorithm.__init__.__code__.co_names)
