"""Private names of libraries are still what training_containers/compat.py takes them for."""

import importlib.metadata
import inspect
from pathlib import Path

import pytest
from transformers import Trainer

from training_containers.compat import TRIED, TrainerCheckpoints

HOOKS = {
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_load_rng_state": ["self", "checkpoint"],
}


def test_the_installed_libraries_are_those_that_were_tried() -> None:
    for library, version in TRIED.items():
        installed = importlib.metadata.version(library)
        assert installed.startswith(f"{version}."), f"{library} {installed}: read compat.py's names in it, then say so"


@pytest.mark.parametrize("name", HOOKS)
def test_the_trainer_still_asks_its_checkpoint_hooks(name: str) -> None:
    assert list(inspect.signature(getattr(Trainer, name)).parameters) == HOOKS[name]
    assert list(inspect.signature(getattr(TrainerCheckpoints, name)).parameters) == HOOKS[name]
    assert f"self.{name}(" in inspect.getsource(Trainer).replace(f"def {name}", ""), "the Trainer calls it no more"


def test_every_private_method_that_is_overridden_has_a_plain_name() -> None:
    from training_containers.finetune.loop.trainer import AnswerTrainer

    private = {name for name in vars(AnswerTrainer) if name.startswith("_") and not name.startswith("__")}
    assert not private & set(dir(Trainer)), "hooks belong into compat.py"


def test_hooks_are_handed_on_as_paths() -> None:
    class Noted(TrainerCheckpoints):
        def __init__(self) -> None:
            self.asked: list[object] = []

        def save_checkpoint(self) -> None:
            self.asked.append("save")

        def load_weights(self, folder: Path) -> None:
            self.asked.append(folder / "weights")

        def load_optimizer(self, folder: Path) -> None:
            self.asked.append(folder / "optimizer")

    noted = Noted()
    noted._save_checkpoint(None, None)
    noted._load_from_checkpoint("/c")
    noted._load_optimizer_and_scheduler("/c")
    noted._load_optimizer_and_scheduler(None)
    noted._load_rng_state("/c")
    assert noted.asked == ["save", Path("/c/weights"), Path("/c/optimizer")]
