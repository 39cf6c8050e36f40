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
from training_containers.finetune.torch_model import emptied


def train_sagemaker(root: Path, hyper: Hyperparameters, env: Mapping[str, str], interruption: Interruption) -> None:
    """Run a job in SageMaker's folders below `root`, /opt/ml; SageMaker itself uploads the files of root/model."""
    channels = root / "input/data"
    folders = Folders(channels / "training", channels / "parent", root / "model", root / "checkpoints")
    run_job(folders, hyper, interruption, env)


def train_azureml(folders: Folders, hyper: Hyperparameters, env: Mapping[str, str], interruption: Interruption) -> None:
    """Run a job in Azure ML's folders; `folders.model` is an output that Azure ML uploads, or a mounted store.

    A mounted store takes whole files only, so they are made elsewhere and copied, the manifest last.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "model"
        manifest = run_job(folders._replace(model=files), hyper, interruption, env)
        if manifest is None:
            return  # another process writes
        emptied(folders.model)
        for name in (*manifest.files, MANIFEST):
            target = folders.model / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files / name, target)
