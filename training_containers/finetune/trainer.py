"""Fine-tuning with the Hugging Face Trainer: answer-only loss, batches of like length, exact resume.

What differs from a plain Trainer, and why:
- the vocabulary projection, most of the work of a small model, runs on answer tokens only;
- batches hold examples of like length, so little padding is computed;
- checkpoints are safetensors and JSON (the Trainer's own contain pickles) and resume to the same weights.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
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

from training_containers.finetune import checkpoint
from training_containers.finetune.encoding import IGNORE, Example, collate

log = logging.getLogger(__name__)

_MODEL: Final = "model.safetensors"
_OPTIMIZER: Final = "optimizer.safetensors"
_PROGRESS: Final = "progress.json"
_STATE: Final = "trainer_state.json"  # the Trainer reads it by this name
_RUNNING: Final = "running"


class Plan(NamedTuple):
    """How to train. Seconds are wall time."""

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    stop_loss: float
    max_seconds: float
    checkpoint_seconds: float
    checkpoints: Path
    # names the run; a checkpoint with another fingerprint is not resumed from
    fingerprint: str


class Outcome(NamedTuple):
    """What a training run did."""

    steps: int
    epochs: float
    loss: float | None  # mean over the last whole epoch; None when none was completed
    why: str  # "all epochs", "converged", "out of time" or "interrupted"
    resumed_from: int | None


class LikeLengthBatches:
    """Batches of indices whose examples are of like length, in an order that depends on (seed, epoch) only."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self._lengths), generator=generator)
        by_length = shuffled[torch.argsort(self._lengths[shuffled], stable=True)].tolist()
        batches = [by_length[i : i + self._batch_size] for i in range(0, len(by_length), self._batch_size)]
        return (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


class AnswerTrainer(Trainer):
    """Trains a GPT-2 on the answers of `examples`."""

    def __init__(
        self, model: GPT2LMHeadModel, examples: Sequence[Example], plan: Plan, interrupted: Callable[[], bool]
    ) -> None:
        self.plan = plan
        self.batches = LikeLengthBatches([len(e.ids) for e in examples], plan.batch_size, plan.seed)
        self.epoch_loss = torch.zeros(())  # sum over the batches of the present epoch
        self.last_epoch_loss: float | None = None
        self.why = _RUNNING
        on_gpu = torch.cuda.is_available()
        arguments = TrainingArguments(
            output_dir=str(plan.checkpoints),
            num_train_epochs=plan.epochs,
            per_device_train_batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=max(1, plan.epochs * len(self.batches) // 20),
            optim="adamw_torch_fused",
            bf16=on_gpu,
            use_cpu=not on_gpu,
            seed=plan.seed,
            save_strategy="no",  # _Watch asks for checkpoints by time
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=on_gpu,
            remove_unused_columns=False,
        )
        super().__init__(
            model=model, args=arguments, train_dataset=list(examples), callbacks=[_Watch(self, interrupted)]
        )
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches from `self.batches`."""
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=collate)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        """Mean cross-entropy over the batch's answer tokens."""
        labels = inputs["labels"][:, 1:]
        learnt = labels != IGNORE
        hidden = model.transformer(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state  # (B, S, D)
        logits = model.lm_head(hidden[:, :-1][learnt])  # (answer tokens, V)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[learnt])
        self.epoch_loss = self.epoch_loss.to(loss.device) + loss.detach()
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's estimate costs time at every step and nobody reads it."""
        return 0

    # --- checkpoints: the Trainer's hooks, without its pickles

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        checkpoint.save(self.plan.checkpoints, self.state.global_step, self.plan.fingerprint, self._write)

    def _write(self, folder: Path) -> None:
        save_model(self.model, str(folder / _MODEL))
        tensors = {
            f"{index}.{name}": value
            for index, entries in self.optimizer.state_dict()["state"].items()
            for name, value in entries.items()
        }
        tensors["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        save_file(tensors, str(folder / _OPTIMIZER))
        progress = {
            "scheduler": self.lr_scheduler.state_dict(),
            "epoch_loss": self.epoch_loss.item(),
            "last_epoch_loss": self.last_epoch_loss,
            "why": self.why,
        }
        (folder / _PROGRESS).write_text(json.dumps(progress))
        self.state.save_to_json(str(folder / _STATE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_model(self.model, str(Path(resume_from_checkpoint) / _MODEL))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        progress = json.loads((Path(checkpoint) / _PROGRESS).read_text())
        self.epoch_loss = torch.tensor(progress["epoch_loss"])
        self.last_epoch_loss = progress["last_epoch_loss"]
        self.lr_scheduler.load_state_dict(progress["scheduler"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in load_file(str(Path(checkpoint) / _OPTIMIZER)).items():
            index, _, name = key.partition(".")
            if index.isdigit():
                state.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        tensors = load_file(str(Path(checkpoint) / _OPTIMIZER))
        torch.set_rng_state(tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])


class _Watch(TrainerCallback):
    """Asks for checkpoints, and stops when converged, out of time or interrupted."""

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

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """After each optimiser step."""
        trainer, plan, now_s = self._trainer, self._trainer.plan, time.monotonic()
        steps = len(trainer.batches)
        converged = False
        if state.global_step % steps == 0:
            trainer.last_epoch_loss = trainer.epoch_loss.item() / steps
            trainer.epoch_loss = torch.zeros(())
            converged = trainer.last_epoch_loss < plan.stop_loss
            facts = {"action": "epoch", "epoch": state.global_step // steps, "loss": round(trainer.last_epoch_loss, 5)}
            log.info("epoch done", extra=facts)
        if converged or state.global_step >= state.max_steps:
            trainer.why = "converged" if converged else "all epochs"
        elif now_s - self._started_s > plan.max_seconds:
            trainer.why = "out of time"
        elif self._interrupted():
            trainer.why = "interrupted"
        else:
            control.should_save = now_s - self._saved_s > plan.checkpoint_seconds
            if control.should_save:
                self._saved_s = now_s
            return control
        # the end is a checkpoint too: an interruption during evaluation resumes from here
        control.should_save = control.should_training_stop = True
        return control


def quiet() -> None:
    """Keep transformers' advice and progress bars out of the JSON log."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def fit(model: GPT2LMHeadModel, examples: Sequence[Example], plan: Plan, interrupted: Callable[[], bool]) -> Outcome:
    """Train `model` in place, resuming from a checkpoint of the same run if there is one."""
    torch.manual_seed(plan.seed)
    trainer = AnswerTrainer(model, examples, plan, interrupted)
    found = checkpoint.newest(plan.checkpoints, plan.fingerprint)
    if found is None:
        trainer.train()
        return _outcome(trainer, trainer.state.global_step, None)
    log.info("resuming", extra={"action": "resume", "step": found.step})
    progress = json.loads((found.folder / _PROGRESS).read_text())
    if progress["why"] not in (_RUNNING, "interrupted"):
        load_model(model, str(found.folder / _MODEL))
        trainer.why, trainer.last_epoch_loss = progress["why"], progress["last_epoch_loss"]
        return _outcome(trainer, found.step, found.step)
    trainer.train(resume_from_checkpoint=str(found.folder))
    return _outcome(trainer, trainer.state.global_step, found.step)


def _outcome(trainer: AnswerTrainer, steps: int, resumed_from: int | None) -> Outcome:
    return Outcome(steps, steps / len(trainer.batches), trainer.last_epoch_loss, trainer.why, resumed_from)
