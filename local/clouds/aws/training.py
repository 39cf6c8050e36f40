"""SageMaker training jobs that really train: the container's command in the /opt/ml layout, on this machine."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from local.clouds.aws.sdk import client
from local.compat import utcnow
from local.processes.container import ROOT, ContainerProcess, Ended, container_log, image_command, image_env
from shared.errors import OpportuneError

log = logging.getLogger(__name__)

RUNNING: Final = ("InProgress", "Stopping")
REASON_LIMIT: Final = 1024  # characters of FailureReason


@dataclass
class _Run:
    """A job that is queued or runs."""

    process: ContainerProcess | None = None
    stop_requested: bool = False


class TrainingRunner:
    """Runs moto's training jobs one after the other and keeps their state as SageMaker would."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")

    def submit(self, job: Any) -> None:
        """Take a job that moto has just made (and, as moto does, called Completed): reset it, then run it."""
        job.training_job_status, job.secondary_status = "InProgress", "Starting"
        # Every attribute from the start: describe reads the object while the runner changes it.
        job.model_artifacts = job.training_start_time = job.training_end_time = job.failure_reason = None
        job.training_time_in_seconds = job.billable_time_in_seconds = None
        job.final_metric_data_list = []
        job.algorithm_specification.pop("MetricDefinitions", None)
        job.secondary_status_transitions = [{"Status": "Starting", "StartTime": job.creation_time}]
        with self._lock:
            self._runs[job.training_job_name] = _Run()
        self._pool.submit(self._run, job).add_done_callback(_log_failure)

    def stop(self, job: Any) -> None:
        """Stop a job that is queued or runs; its status becomes Stopping, later Stopped."""
        with self._lock:
            run = self._runs[job.training_job_name]
            run.stop_requested = True
            job.training_job_status = "Stopping"
            _secondary(job, "Stopping")
            if run.process:
                run.process.stop()

    def kill(self) -> None:
        """End every container at once, without the grace (the cloud itself goes away)."""
        with self._lock:
            for run in self._runs.values():
                if run.process:
                    run.process.kill()

    def _run(self, job: Any) -> None:
        name = job.training_job_name
        root = self._work_dir / name
        try:
            status, secondary, reason = self._train(job, root)
        except (BotoCoreError, ClientError, OpportuneError, OSError, tarfile.TarError) as exc:
            status, secondary, reason = "Failed", "Failed", f"ClientError: {exc}"
        now = utcnow()
        if job.training_start_time:
            seconds = max(1, round((now - job.training_start_time).total_seconds()))
            job.training_time_in_seconds = job.billable_time_in_seconds = seconds
        job.training_end_time = now
        job.failure_reason = reason[:REASON_LIMIT] or None
        _secondary(job, secondary)
        job.training_job_status = status
        with self._lock:
            del self._runs[name]
        log.info("training job %s: %s %s", name, status, reason)
        _announce(job)
        shutil.rmtree(root, ignore_errors=True)

    def _train(self, job: Any, root: Path) -> tuple[str, str, str]:
        """Status, secondary status, failure reason."""
        shutil.rmtree(root, ignore_errors=True)
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (root / folder).mkdir(parents=True)
        _secondary(job, "Downloading")
        channels = job.input_data_config or []
        for channel in channels:
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            download(uri, root / "input/data" / channel["ChannelName"])
        checkpoints = (job.checkpoint_config or {}).get("S3Uri")
        if checkpoints:
            download(checkpoints, root / "checkpoints")
        _write_config(job, root / "input/config")

        run = self._runs[job.training_job_name]
        with self._lock:
            if run.stop_requested:
                return "Stopped", "Stopped", ""
            job.training_start_time = utcnow()
            run.process = ContainerProcess(
                image_command(),
                _container_env(job, root),
                ROOT,
                container_log(f"sagemaker-{job.training_job_name}", self._work_dir),
            )
        _secondary(job, "Training")
        _announce(job)
        ended, code = run.process.wait(job.stopping_condition.get("MaxRuntimeInSeconds", 86400))

        _secondary(job, "Uploading")
        if checkpoints:
            upload(root / "checkpoints", checkpoints)
        job.model_artifacts = {"S3ModelArtifacts": _upload_model(job, root)}
        if ended is Ended.STOPPED:
            return "Stopped", "Stopped", ""
        if ended is Ended.TIMEOUT:
            return "Stopped", "MaxRuntimeExceeded", ""
        if code == 0:
            return "Completed", "Completed", ""
        failure = root / "output/failure"
        words = failure.read_text(errors="replace").strip() if failure.exists() else "no failure file was written"
        return "Failed", "Failed", f"AlgorithmError: {words}, exit code: {code}"


def _log_failure(future: Future[None]) -> None:
    if error := future.exception():
        log.error("a training job was lost", exc_info=error)


def download(uri: str, folder: Path) -> None:
    """All objects under an s3:// prefix, with their paths below it; a single object keeps its name."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    s3 = client("s3")
    folder.mkdir(parents=True, exist_ok=True)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for key in [found["Key"] for page in pages for found in page.get("Contents", [])]:
        if key.endswith("/"):
            continue
        relative = key.rpartition("/")[2] if key == prefix else key[len(prefix) :].lstrip("/")
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def upload(folder: Path, uri: str) -> None:
    """Every file below `folder` to the s3:// prefix."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    s3 = client("s3")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        key = f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}"
        s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def _upload_model(job: Any, root: Path) -> str:
    """Pack model/ where SageMaker puts it; its address."""
    archive = root / "model.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(root / "model", arcname=".")
    base = job.output_data_config["S3OutputPath"].rstrip("/")
    uri = f"{base}/{job.training_job_name}/output/model.tar.gz"
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client("s3").put_object(Bucket=bucket, Key=key, Body=archive.read_bytes())
    return uri


def _write_config(job: Any, folder: Path) -> None:
    """The three JSON files that SageMaker gives to a container."""
    instance = job.resource_config.get("InstanceType", "ml.m5.large")
    configs: dict[str, Any] = {
        "hyperparameters": job.hyper_parameters or {},
        "resourceconfig": {
            "current_host": "algo-1",
            "current_instance_type": instance,
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [
                {"instance_group_name": "homogeneousCluster", "instance_type": instance, "hosts": ["algo-1"]}
            ],
            "network_interface_name": "lo",
        },
        "inputdataconfig": {
            channel["ChannelName"]: {
                "TrainingInputMode": "File",
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            for channel in job.input_data_config or []
        },
    }
    for name, content in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def _container_env(job: Any, root: Path) -> dict[str, str]:
    return {
        **image_env(),
        "TRAINING_JOB_NAME": job.training_job_name,
        "TRAINING_JOB_ARN": job.arn,
        "SM_CURRENT_HOST": "algo-1",
        "OPPORTUNE_ML_ROOT": str(root),
        **(job.environment or {}),
    }


def _secondary(job: Any, status: str) -> None:
    """Append a secondary status, closing the one before."""
    now = utcnow()
    *before, last = job.secondary_status_transitions
    closed = {**last, "EndTime": now}
    job.secondary_status_transitions = [*before, closed, {"Status": status, "StartTime": now}]
    job.secondary_status = status
    job.last_modified_time = now


def _announce(job: Any) -> None:
    """The EventBridge event of a changed job."""
    detail = {
        key: value
        for key, value in job.response_object.items()
        if key
        in (
            "TrainingJobName",
            "TrainingJobArn",
            "TrainingJobStatus",
            "SecondaryStatus",
            "HyperParameters",
            "AlgorithmSpecification",
            "RoleArn",
            "InputDataConfig",
            "OutputDataConfig",
            "ResourceConfig",
            "StoppingCondition",
            "ModelArtifacts",
            "FailureReason",
        )
    }
    for key in ("creation_time", "training_start_time", "training_end_time", "last_modified_time"):
        if moment := getattr(job, key):
            detail[job.camelCase(key)] = round(moment.replace(tzinfo=UTC).timestamp() * 1000)
    detail["Tags"] = {tag["Key"]: tag["Value"] for tag in job.tags}
    entry = {
        "Source": "aws.sagemaker",
        "DetailType": "SageMaker Training Job State Change",
        "Resources": [job.arn],
        "Detail": json.dumps(detail),
    }
    client("events").put_events(Entries=[entry])


def work_dir() -> Path:
    """Where jobs and models live while in use (OPPORTUNE_LOCAL_WORK)."""
    path = Path(os.environ.get("OPPORTUNE_LOCAL_WORK", "build/local-aws")).resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path
