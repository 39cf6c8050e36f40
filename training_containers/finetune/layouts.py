"""Folder layouts of a training job: SageMaker's fixed folders, Azure ML's named inputs and outputs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shared.artifact import MANIFEST
from training_containers.finetune.hyperparameters import Hyperparameters
from training_containers.finetune.job import Folders, run_job
from training_containers.finetune.loop.interruption import Interruption
from training_containers.model.artifact import ARCHIVE, pack


def train_sagemaker(root: Path, hyper: Hyperparameters, env: Mapping[str, str], interruption: Interruption) -> None:
    """Run a job in SageMaker's folders below `root`, /opt/ml; SageMaker itself packs and uploads root/model."""
    channels = root / "input/data"
    folders = Folders(channels / "training", channels / "parent", root / "model", root / "checkpoints")
    run_job(folders, hyper, interruption, env)


def train_azureml(folders: Folders, hyper: Hyperparameters, env: Mapping[str, str], interruption: Interruption) -> None:
    """Run a job in Azure ML's folders.

    Leaves model.tar.gz and, beside it, manifest.json in `folders.model`, an output that Azure ML uploads.
    """
    folders.model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "model"
        if run_job(folders._replace(model=files), hyper, interruption, env) is None:
            return  # another process writes
        pack(files, folders.model / ARCHIVE)
        shutil.copyfile(files / MANIFEST, folders.model / MANIFEST)
