"""Private names of libraries that this code depends on, each once and under a plain name.

transformers 5.23, `Trainer._save_checkpoint`, `_load_from_checkpoint`, `_load_optimizer_and_scheduler`,
`_load_rng_state`: the Trainer's own checkpoints contain pickles, and there is no public way to write others. Upstream
keeps these apart so that they can be overridden (huggingface/transformers#17043).

`tests/training_containers/test_compat.py` fails when a library changes them. Nothing is imported here, because serving
must not wait for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

#: library -> the release the private names above were last read in
TRIED: Final = {"transformers": "5.23"}


class TrainerCheckpoints:
    """Mixin before `transformers.Trainer`: its hooks around checkpoints, for a subclass to define.

    `Trainer.train(resume_from_checkpoint=folder)` calls `load_weights`, then `load_optimizer`. Random numbers are not
    restored: the subclass seeds every step.
    """

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the present step; every process is asked."""
        raise NotImplementedError

    def load_weights(self, folder: Path) -> None:
        """Read the model of a checkpoint."""
        raise NotImplementedError

    def load_optimizer(self, folder: Path) -> None:
        """Read optimizer and learning rate schedule of a checkpoint."""
        raise NotImplementedError

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        self.save_checkpoint()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.load_optimizer(Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load."""
