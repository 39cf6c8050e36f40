"""The two clouds' conventions for the same job: SageMaker's fixed folders, Azure ML's named inputs and outputs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shared.errors import InvalidInputError
from training_containers.finetune.artifact import ARCHIVE, MANIFEST, pack
from training_containers.finetune.hyperparameters import Hyperparameters, parse_hyperparameters
from training_containers.finetune.interruption import Interruption
from training_containers.finetune.job import Folders, run_job

#: hyperparameters in the environment: OPPORTUNE_HP_JOB_ID is job_id
ENV_PREFIX: Final = "OPPORTUNE_HP_"


def sagemaker_hyperparameters(root: Path) -> Hyperparameters:
    """Read input/config/hyperparameters.json; keys that SageMaker adds for its own use are skipped.

    Raises:
        InvalidInputError: missing, not a JSON object of strings, or a wrong value.
    """
    path = root / "input/config/hyperparameters.json"
    try:
        raw = json.loads(path.read_bytes())
    except OSError as exc:
        raise InvalidInputError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise InvalidInputError(f"{path}: not JSON: {exc}") from exc
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise InvalidInputError(f"{path}: not a JSON object whose values are strings")
    return parse_hyperparameters({k: v for k, v in raw.items() if not k.startswith("sagemaker_")})


def train_sagemaker(root: Path, hyper: Hyperparameters, interruption: Interruption) -> None:
    """`root` is /opt/ml; SageMaker itself packs and uploads root/model."""
    channels = root / "input/data"
    folders = Folders(channels / "training", channels / "parent", root / "model", root / "checkpoints")
    run_job(folders, hyper, interruption)


def azureml_hyperparameters(options: list[str], env: Mapping[str, str]) -> Hyperparameters:
    """`name=value` options, and OPPORTUNE_HP_* variables for what the options leave out.

    Raises:
        InvalidInputError: an option without `=`, or a wrong value.
    """
    raw = {key[len(ENV_PREFIX) :].lower(): value for key, value in env.items() if key.startswith(ENV_PREFIX)}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise InvalidInputError(f"--hyperparameter {option}: write it as name=value")
        raw[name] = value
    return parse_hyperparameters(raw)


def train_azureml(folders: Folders, hyper: Hyperparameters, interruption: Interruption) -> None:
    """Leaves model.tar.gz and, beside it, manifest.json in `folders.model`, an output that Azure ML uploads."""
    folders.model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "model"
        run_job(folders._replace(model=files), hyper, interruption)
        pack(files, folders.model / ARCHIVE)
        shutil.copyfile(files / MANIFEST, folders.model / MANIFEST)
