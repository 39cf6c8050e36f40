"""The two clouds' conventions for the same job: SageMaker's fixed folders, Azure ML's named inputs and outputs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from training_containers.finetune.hyperparameters import Hyperparameters
from training_containers.finetune.job import Folders, run_job
from training_containers.finetune.loop.interruption import Interruption
from training_containers.model.artifact import ARCHIVE, MANIFEST, pack


def train_sagemaker(root: Path, hyper: Hyperparameters, interruption: Interruption) -> None:
    """`root` is /opt/ml; SageMaker itself packs and uploads root/model."""
    channels = root / "input/data"
    folders = Folders(channels / "training", channels / "parent", root / "model", root / "checkpoints")
    run_job(folders, hyper, interruption)


def train_azureml(folders: Folders, hyper: Hyperparameters, interruption: Interruption) -> None:
    """Leaves model.tar.gz and, beside it, manifest.json in `folders.model`, an output that Azure ML uploads."""
    folders.model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "model"
        if run_job(folders._replace(model=files), hyper, interruption) is None:
            return  # another process writes
        pack(files, folders.model / ARCHIVE)
        shutil.copyfile(files / MANIFEST, folders.model / MANIFEST)
