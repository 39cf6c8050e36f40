"""Fine-tuning with the Hugging Face Trainer: answer-only loss, batches of like length, exact resume.

What differs from a plain Trainer, and why:
- the vocabulary projection, most of the work of a small model, runs on answer tokens only;
- batches hold examples of like length, so little padding is computed;
- the activation is torch's own kernel in place of eight elementwise ones;
- bf16 where the hardware has units for it, the weights stay fp32;
- several processes split each batch, and compute what one process would;
- random numbers depend on (seed, step, process) only, so there is no state of theirs to save;
- checkpoints are safetensors and JSON (the Trainer's own contain pickles) and resume to the same weights.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import transformers
from safetensors.torch import load_file, load_model, save_file, save_model
from torch.utils.data import DataLoader
from transformers import (
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from shared.errors import ModelError
from training_containers.compat import TrainerCheckpoints
from training_containers.finetune.loop import checkpoint, processes
from training_containers.finetune.loop.answer_loss import AnswerLoss, mean_loss
from training_containers.finetune.loop.batches import Batches, share
from training_containers.finetune.loop.encoding import Example
from training_containers.finetune.loop.hardware import Hardware

log = logging.getLogger(__name__)

_MODEL: Final = "model.safetensors"
_BEST: Final = "best.safetensors"
_OPTIMIZER: Final = "optimizer.safetensors"
_PROGRESS: Final = "progress.json"
_STATE: Final = "trainer_state.json"  # the Trainer reads it by this name
_RUNNING: Final = "running"


class Plan(NamedTuple):
    """How to train. Seconds are wall time."""

    epochs: int
    learning_rate: float
    batch_size: int  # of one optimiser step, over all processes
    seed: int
    stop_loss: float
    max_seconds: float
    checkpoint_seconds: float
    checkpoints: Path
    # names the run; a checkpoint with another fingerprint is not resumed from
    fingerprint: str
    # epochs without a better loss on the validation examples before training ends; 0 = do not look at them
    patience: int = 0
    question_weight: float = 0.0  # of a token of the question in the loss, beside one of the answer
    hardware: Hardware = Hardware(cuda=False, bf16=False)
    compile: bool = False


class Outcome(NamedTuple):
    """What a training run did."""

    steps: int
    epochs: float
    loss: float | None  # mean over the last whole epoch; None when none was completed
    why: str  # "all epochs", "converged", "no longer improving", "out of time" or "interrupted"
    resumed_from: int | None
    validation_loss: float | None = None  # of the weights that were kept; None without patience


class Progress:
    """What a resumed run has to know beside weights, optimiser and schedule."""

    def __init__(self) -> None:
        self.why = _RUNNING
        self.last_epoch_loss: float | None = None
        self.epoch_loss = 0.0  # sum over the steps of the present epoch, up to the checkpoint
        self.best_loss: float | None = None
        self.epochs_since_best = 0

    def read(self, folder: Path) -> None:
        """Take over what a checkpoint says."""
        vars(self).update(json.loads((folder / _PROGRESS).read_text())["progress"])


class AnswerTrainer(TrainerCheckpoints, Trainer):
    """Trains a GPT-2 on the answers of `examples`; the losses it reports are of answers alone."""

    def __init__(
        self,
        model: GPT2LMHeadModel,
        examples: Sequence[Example],
        plan: Plan,
        interrupted: Callable[[], bool],
        validation: Sequence[Example],
    ) -> None:
        self.plan = plan
        self.network = model
        self.best: GPT2LMHeadModel | None = None
        self.validation = validation
        lengths = [len(e.ids) for e in examples]
        self.batches = Batches(lengths, plan.batch_size, plan.seed, like_length=not plan.question_weight)
        self.progress = Progress()
        self.epoch_loss = torch.zeros((), dtype=torch.float64)  # of this process, since the last checkpoint or epoch
        arguments = TrainingArguments(
            output_dir=str(plan.checkpoints),
            num_train_epochs=plan.epochs,
            per_device_train_batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=max(1, plan.epochs * len(self.batches) // 20),
            optim="adamw_torch_fused",
            bf16=plan.hardware.bf16,
            use_cpu=not plan.hardware.cuda,
            torch_compile=plan.compile,
            ddp_find_unused_parameters=False,
            seed=plan.seed,
            save_strategy="no",  # _Watch asks for checkpoints by time
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=plan.hardware.cuda,
            remove_unused_columns=False,
        )
        super().__init__(
            model=AnswerLoss(model, plan.question_weight),
            args=arguments,
            train_dataset=list(examples),
            callbacks=[_Watch(self, interrupted)],
        )
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches from `self.batches`; each process takes its share of each."""
        pin = self.plan.hardware.cuda
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=share, pin_memory=pin)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        """This process's part of the batch's loss, per answer token."""
        loss: torch.Tensor
        loss, of_answers = model(**inputs)
        self.epoch_loss = self.epoch_loss.to(loss.device) + of_answers
        # gradients are averaged over the processes, and what counts is their sum
        return loss * processes.size()

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's estimate costs time at every step and nobody reads it."""
        return 0

    def gather_loss(self) -> float:
        """Sum of the present epoch's step losses, over all processes."""
        self.progress.epoch_loss += processes.total(self.epoch_loss).item()
        self.epoch_loss = torch.zeros((), dtype=torch.float64)
        return self.progress.epoch_loss

    # --- checkpoints: the Trainer's hooks, without its pickles

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the present step, in the first process."""
        self.gather_loss()
        if processes.rank() == 0:
            checkpoint.save(self.plan.checkpoints, self.state.global_step, self.plan.fingerprint, self._write)

    def _write(self, folder: Path) -> None:
        save_model(self.network, str(folder / _MODEL))
        if self.best is not None:
            save_model(self.best, str(folder / _BEST))
        tensors = {
            f"{index}.{name}": value
            for index, entries in self.optimizer.state_dict()["state"].items()
            for name, value in entries.items()
        }
        save_file(tensors, str(folder / _OPTIMIZER))
        facts = {"scheduler": self.lr_scheduler.state_dict(), "progress": vars(self.progress)}
        (folder / _PROGRESS).write_text(json.dumps(facts))
        self.state.save_to_json(str(folder / _STATE))

    def load_weights(self, folder: Path) -> None:
        """Read the model of a checkpoint, and the best one so far."""
        load_model(self.network, str(folder / _MODEL))
        if (folder / _BEST).exists():
            self.best = copy.deepcopy(self.network)
            load_model(self.best, str(folder / _BEST))

    def load_optimizer(self, folder: Path) -> None:
        """Read optimizer and learning rate schedule of a checkpoint."""
        self.lr_scheduler.load_state_dict(json.loads((folder / _PROGRESS).read_text())["scheduler"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in load_file(str(folder / _OPTIMIZER)).items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


class _Watch(TrainerCallback):
    """Asks for checkpoints, and stops when converged, no longer improving, out of time or interrupted."""

    def __init__(self, trainer: AnswerTrainer, interrupted: Callable[[], bool]) -> None:
        self._trainer = trainer
        self._interrupted = interrupted
        self._started_s = self._saved_s = time.monotonic()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """The batch order of the coming epoch, also in the middle of a resumed one."""
        self._trainer.batches.epoch = state.global_step // len(self._trainer.batches)
        return control

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Dropout of this step and process, whatever came before."""
        step = self._trainer.plan.seed * 1_000_003 + state.global_step
        torch.manual_seed(step * processes.size() + processes.rank())
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """After each optimiser step."""
        plan, now_s = self._trainer.plan, time.monotonic()
        ended = self._epoch_end(state.global_step) if state.global_step % len(self._trainer.batches) == 0 else None
        if ended is None and state.global_step >= state.max_steps:
            ended = "all epochs"
        # clocks and signals differ between processes, what they do next must not
        late, interrupted, due = processes.any_of(
            now_s - self._started_s > plan.max_seconds,
            self._interrupted(),
            now_s - self._saved_s > plan.checkpoint_seconds,
        )
        ended = ended or ("out of time" if late else "interrupted" if interrupted else None)
        if due:
            self._saved_s = now_s
        if ended:
            self._trainer.progress.why = ended
        # the end is a checkpoint too: an interruption during evaluation resumes from here
        control.should_save = due or ended is not None
        control.should_training_stop = ended is not None
        return control

    def _epoch_end(self, step: int) -> str | None:
        """Book the epoch; the reason to end here, if there is one."""
        trainer, plan, progress = self._trainer, self._trainer.plan, self._trainer.progress
        progress.last_epoch_loss = trainer.gather_loss() / len(trainer.batches)
        progress.epoch_loss = 0.0
        facts = {"action": "epoch", "epoch": step // len(trainer.batches), "loss": round(progress.last_epoch_loss, 5)}
        if plan.patience:
            loss = mean_loss(trainer.network, trainer.validation, plan.batch_size)
            facts["validation_loss"] = round(loss, 5)
            if progress.best_loss is None or loss < progress.best_loss:
                progress.best_loss, progress.epochs_since_best = loss, 0
                trainer.best = copy.deepcopy(trainer.network)
            else:
                progress.epochs_since_best += 1
        log.info("epoch done", extra=facts)
        if progress.last_epoch_loss < plan.stop_loss:
            return "converged"
        return "no longer improving" if plan.patience and progress.epochs_since_best >= plan.patience else None


def quiet() -> None:
    """Keep transformers' advice and progress bars out of the JSON log."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def fit(
    model: GPT2LMHeadModel,
    examples: Sequence[Example],
    plan: Plan,
    interrupted: Callable[[], bool],
    validation: Sequence[Example] = (),
) -> Outcome:
    """Train `model` in place, resuming from a checkpoint of the same run if there is one.

    With `plan.patience` the weights that were best on `validation` are kept.

    Raises:
        ModelError: the processes do not see the same checkpoint.
    """
    torch.manual_seed(plan.seed)
    trainer = AnswerTrainer(model, examples, plan, interrupted, validation)
    found = checkpoint.newest(plan.checkpoints, plan.fingerprint)
    if processes.agreed(found.step if found else 0) is None:
        raise ModelError(f"{plan.checkpoints}: the processes see different checkpoints; give all of them the same")
    if found is None:
        trainer.train()
    else:
        log.info("resuming", extra={"action": "resume", "step": found.step})
        trainer.progress.read(found.folder)
        if trainer.progress.why in (_RUNNING, "interrupted"):
            trainer.progress.why = _RUNNING
            trainer.train(resume_from_checkpoint=str(found.folder))
        else:
            trainer.load_weights(found.folder)
            trainer.state.global_step = found.step
    if trainer.best is not None:
        model.load_state_dict(trainer.best.state_dict())
    steps, progress = trainer.state.global_step, trainer.progress
    return Outcome(
        steps,
        steps / len(trainer.batches),
        progress.last_epoch_loss,
        progress.why,
        found.step if found else None,
        progress.best_loss,
    )
