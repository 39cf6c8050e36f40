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

from botocore.exceptions import BotoCoreError, ClientError  # noqa: TID251 - the cloud itself, not a use case

from local.clouds.aws.sdk import REGION, client
from local.clouds.faults import JOB, Faults
from local.compat import utcnow
from local.processes.container import ROOT, ContainerProcess, Ended, container_log, image_command, image_env
from shared.errors import OpportuneError

log = logging.getLogger(__name__)

RUNNING: Final = ("InProgress", "Stopping")
REASON_LIMIT: Final = 1024  # characters of FailureReason
#: a spot instance that is to be taken away is so after this long
INTERRUPT_AFTER_S: Final = 2.0


@dataclass
class _Run:
    """A job that is queued or runs."""

    process: ContainerProcess | None = None
    stop_requested: bool = False


class TrainingRunner:
    """Runs moto's training jobs one after the other and keeps their state as SageMaker would."""

    def __init__(self, work_dir: Path, faults: Faults) -> None:
        self._work_dir = work_dir
        self._faults = faults
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
        if fault := self._faults.take(JOB, "CapacityError", "MaxWaitTimeExceeded"):
            if fault.code == "MaxWaitTimeExceeded":
                return "Stopped", "MaxWaitTimeExceeded", ""
            return "Failed", "Failed", f"{fault.code}: Unable to provision requested ML compute capacity."
        while (ended := self._attempt(job, root)) is None:
            _secondary(job, "Interrupted")  # the spot instance is gone; SageMaker looks for another one
            _secondary(job, "Starting")
        return ended

    def _attempt(self, job: Any, root: Path) -> tuple[str, str, str] | None:
        """On one instance, with its channels and what lies where it keeps checkpoints; None: it was taken away."""
        shutil.rmtree(root, ignore_errors=True)
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (root / folder).mkdir(parents=True)
        _secondary(job, "Downloading")
        channels = job.input_data_config or []
        for channel in channels:
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            if not download(uri, root / "input/data" / channel["ChannelName"]):
                return (
                    "Failed",
                    "Failed",
                    f"ClientError: Data download failed: No S3 objects found under S3 URL {uri!r}",
                )
        checkpoints = (job.checkpoint_config or {}).get("S3Uri")
        if checkpoints:
            download(checkpoints, root / "checkpoints")
        _write_config(job, root / "input/config")

        run = self._runs[job.training_job_name]
        with self._lock:
            if run.stop_requested:
                return "Stopped", "Stopped", ""
            job.training_start_time = job.training_start_time or utcnow()
            run.process = ContainerProcess(
                image_command("train"),
                _container_env(job, root),
                ROOT,
                container_log(f"sagemaker-{job.training_job_name}", self._work_dir),
            )
        _secondary(job, "Training")
        _announce(job)
        interrupted = threading.Event()
        if self._faults.take(JOB, "Interrupted"):
            self._take_away_later(run.process, interrupted)
        ended, code = run.process.wait(job.stopping_condition.get("MaxRuntimeInSeconds", 86400))

        _secondary(job, "Uploading")
        if checkpoints:
            upload(root / "checkpoints", checkpoints)
        if ended is Ended.STOPPED and interrupted.is_set() and not run.stop_requested:
            return None
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

    def _take_away_later(self, process: ContainerProcess, interrupted: threading.Event) -> None:
        """A spot instance's end: SIGTERM and two minutes."""

        def take_away() -> None:
            interrupted.set()
            process.stop()

        timer = threading.Timer(INTERRUPT_AFTER_S, take_away)
        timer.daemon = True
        timer.start()


def _log_failure(future: Future[None]) -> None:
    if error := future.exception():
        log.error("a training job was lost", exc_info=error)


def download(uri: str, folder: Path) -> int:
    """All objects under an s3:// prefix, with their paths below it; a single object keeps its name. How many."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    s3 = client("s3")
    folder.mkdir(parents=True, exist_ok=True)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", []) if not found["Key"].endswith("/")]
    for key in keys:
        relative = key.rpartition("/")[2] if key == prefix else key[len(prefix) :].lstrip("/")
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return len(keys)


def upload(folder: Path, uri: str) -> None:
    """Every file below `folder` to the s3:// prefix."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    s3 = client("s3")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        key = f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}"
        s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def _upload_model(job: Any, root: Path) -> str:
    """Bring model/ where SageMaker puts it, packed unless CompressionType is NONE; its address."""
    output = job.output_data_config
    uri = f"{output['S3OutputPath'].rstrip('/')}/{job.training_job_name}/output/model"
    if output.get("CompressionType") == "NONE":
        upload(root / "model", uri)
        return f"{uri}/"
    uri += ".tar.gz"
    archive = root / "model.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(root / "model", arcname=".")
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


def service_env() -> dict[str, str]:
    """What every container of SageMaker is given: its role's credentials and its region.

    In AWS the credentials come from an address of the instance; here the address of the cloud itself is named, too.
    """
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }


def _container_env(job: Any, root: Path) -> dict[str, str]:
    return {
        **image_env(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        **service_env(),
        "TRAINING_JOB_NAME": job.training_job_name,
        "TRAINING_JOB_ARN": job.arn,
        "SM_CURRENT_HOST": "algo-1",
        "OPPORTUNE_ML_ROOT": str(root),  # /opt/ml, where a container has the whole of it
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
