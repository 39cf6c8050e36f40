"""The `train` command: picks the cloud's layout, turns errors into an exit code and a failure file."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

from safetensors import SafetensorError

from shared.errors import InvalidInputError, OpportuneError
from shared.logs import log_json
from training_containers.finetune.hyperparameters import azureml_hyperparameters, sagemaker_hyperparameters
from training_containers.finetune.loop.interruption import EXIT_INTERRUPTED, InterruptedTrainingError, Interruption
from training_containers.finetune.loop.launch import azureml_machines, run_processes, sagemaker_machines

log = logging.getLogger(__name__)

#: SageMaker shows this much of the failure file
_FAILURE_CHARS: Final = 1024


class FailureFile(AbstractContextManager["FailureFile"]):
    """Writes what went wrong to SageMaker's output/failure, and lets it pass on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, InterruptedTrainingError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            known = isinstance(error, OpportuneError)
            self._path.write_text((str(error) if known else f"{type(error).__name__}: {error}")[:_FAILURE_CHARS])


def train(args: argparse.Namespace) -> int:
    """Run the job. Exit codes: 0 done, 1 failed, 2 wrong input, 143 interrupted with a checkpoint."""
    env = os.environ  # read here and nowhere else in a training process
    interruption = Interruption()
    interruption.install()
    log_json(action="train")
    try:
        return _azureml(args, env, interruption) if args.data else _sagemaker(env, interruption)
    except InterruptedTrainingError as exc:
        log.warning(str(exc), extra={"action": "interrupted"})
        return EXIT_INTERRUPTED
    except OpportuneError as exc:
        print(f"train: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, InvalidInputError) else 1
    except OSError as exc:
        print(f"train: {exc.filename or 'input/output'}: {exc.strerror or exc}", file=sys.stderr)
        return 1
    except SafetensorError as exc:  # what safetensors makes of an OSError: a full disk, for one
        print(f"train: weights: {exc}", file=sys.stderr)
        return 1


def _sagemaker(env: Mapping[str, str], interruption: Interruption) -> int:
    root = Path(env.get("OPPORTUNE_ML_ROOT", "/opt/ml"))
    with FailureFile(root / "output/failure"):
        hyper = sagemaker_hyperparameters(root)
        code = run_processes(sagemaker_machines(root), hyper.processes, env, interruption)
        if code is not None:
            return code
        log_json(trace_id=hyper.trace_id, job_id=hyper.job_id, service=hyper.service)
        from training_containers.finetune.layouts import train_sagemaker  # torch: seconds, so not before a wrong input

        train_sagemaker(root, hyper, env, interruption)
    return 0


def _azureml(args: argparse.Namespace, env: Mapping[str, str], interruption: Interruption) -> int:
    if not args.model or not args.checkpoints:
        raise InvalidInputError("--data needs --model and --checkpoints beside it")
    hyper = azureml_hyperparameters(args.hyperparameter, env)
    code = run_processes(azureml_machines(env), hyper.processes, env, interruption)
    if code is not None:
        return code
    log_json(trace_id=hyper.trace_id, job_id=hyper.job_id, service=hyper.service)
    from training_containers.finetune.job import Folders
    from training_containers.finetune.layouts import train_azureml

    folders = Folders(args.data, args.parent, args.model, args.checkpoints)
    train_azureml(folders, hyper, env, interruption)
    return 0


def make_base(args: argparse.Namespace) -> int:
    """Make the small base model. Exit codes: 0 done, 2 wrong input."""
    log_json(action="make-base")
    try:
        from training_containers.finetune.make_base import make_base as make

        make(args.out, questions=args.questions, first=args.first, epochs=args.epochs, seed=args.seed)
    except InvalidInputError as exc:
        print(f"make-base: {exc}", file=sys.stderr)
        return 2
    return 0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe `train` and `make-base` on the command line."""
    training = _command(
        commands, "train", train, "Fine-tune; without options in SageMaker's layout under $OPPORTUNE_ML_ROOT (/opt/ml)."
    )
    training.add_argument("--data", type=Path, help="Azure ML: folder with *.jsonl training pairs")
    training.add_argument("--parent", type=Path, help="Azure ML: folder of the serving model's artifact")
    training.add_argument("--model", type=Path, help="Azure ML: where the model's files go, manifest.json last")
    training.add_argument("--checkpoints", type=Path, help="Azure ML: where checkpoints are kept over interruptions")
    training.add_argument(
        "--hyperparameter", action="append", default=[], metavar="NAME=VALUE", help="Azure ML: repeatable"
    )
    base = _command(commands, "make-base", make_base, "Make the small base model of the embedded default.")
    base.add_argument("--out", type=Path, required=True, help="where the model artifact goes; emptied first")
    base.add_argument("--questions", default="builtin", metavar="builtin|squad|PATH")
    base.add_argument("--first", type=int, help="how many of the oldest questions it learns (default: first topic)")
    base.add_argument("--epochs", type=int, default=30)
    base.add_argument("--seed", type=int, default=0)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(run=run)
    return parser
