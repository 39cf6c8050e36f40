"""SageMaker behind the ports: training jobs and endpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from shared.adapters.aws import client, translated
from shared.adapters.aws_json import JsonService
from shared.contracts import TrainingJob
from shared.errors import ModelError, NotFoundError, UnavailableError
from shared.ports import TrainingStatus
from shared.settings import Settings

#: every status SageMaker documents -> ours; anything else is an error, never "finished"
_STATES: Final = {
    "InProgress": "running",
    "Stopping": "running",
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopped": "stopped",
}
_BUSY: Final = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
_NAME_LIMIT: Final = 63
_SAGEMAKER: Final = JsonService("sagemaker", "SageMaker", "1.1")


class SageMakerTraining:
    """TrainingService on SageMaker training jobs; the job's name is our job_id."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def _describe(self, job_id: str) -> dict[str, Any] | None:
        return _found(lambda: client("sagemaker").describe_training_job(TrainingJobName=job_id), f"job {job_id}")

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Create the training job unless one of that name exists."""
        if self._describe(job.job_id) is not None:
            return
        with _creating(f"training job {job.job_id}"):
            client("sagemaker").create_training_job(**self.request(job, data_uri, parent_uri))

    def request(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> dict[str, Any]:
        """The CreateTrainingJob request."""
        cfg = self._settings
        bucket = f"s3://{cfg.bucket}"
        channels = {"training": data_uri} | ({"parent": parent_uri} if parent_uri else {})
        seconds = max(1, round(job.deadline_s))
        # Spot capacity may make us wait; twice the run time bounds it.
        waiting = {"MaxWaitTimeInSeconds": 2 * seconds} if cfg.sagemaker_spot else {}
        return {
            "TrainingJobName": job.job_id,
            "RoleArn": cfg.sagemaker_role_arn,
            "AlgorithmSpecification": {"TrainingImage": cfg.sagemaker_image, "TrainingInputMode": "File"},
            "HyperParameters": dict(job.hyperparameters),
            "InputDataConfig": [
                {
                    "ChannelName": name,
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": uri,
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
                for name, uri in channels.items()
            ],
            "OutputDataConfig": {"S3OutputPath": f"{bucket}/artifacts"},
            "CheckpointConfig": {"S3Uri": f"{bucket}/jobs/{job.job_id}/checkpoints"},
            "ResourceConfig": {
                "InstanceType": cfg.sagemaker_instance_type,
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": seconds, **waiting},
            "EnableManagedSpotTraining": cfg.sagemaker_spot,
            "Tags": [
                {"Key": "opportune-service", "Value": job.service},
                {"Key": "opportune-trace-id", "Value": job.trace_id},
            ],
        }

    def status(self, job_id: str) -> TrainingStatus | None:
        """What SageMaker says of the job."""
        found = self._describe(job_id)
        if found is None:
            return None
        state = _STATES.get(found["TrainingJobStatus"])
        if state is None:
            raise UnavailableError(
                "SageMaker", f"job {job_id} has the unknown status {found['TrainingJobStatus']!r}; upgrade opportune"
            )
        started, finished = found.get("TrainingStartTime"), found.get("TrainingEndTime")
        return TrainingStatus(
            state,
            found.get("FailureReason") or found.get("SecondaryStatus") or state,
            started.timestamp() if started else None,
            finished.timestamp() if finished else None,
        )

    def stop(self, job_id: str) -> None:
        """Ask for a stop; the job reports `stopped` later."""
        with translated(f"SageMaker job {job_id}"):
            client("sagemaker").stop_training_job(TrainingJobName=job_id)

    def artifact(self, job_id: str) -> bytes:
        """model.tar.gz of the finished job."""
        found = self._describe(job_id)
        uri = (found or {}).get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not key:
            raise NotFoundError(f"SageMaker job {job_id} has no model artifact")
        with translated(uri):
            return bytes(client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


class SageMakerHost:
    """ModelHost on one SageMaker endpoint; the production variant's name is the model version."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._endpoint = settings.sagemaker_endpoint

    def _name(self, model_version: str) -> str:
        name = f"{self._endpoint}-{model_version}"
        if len(name) <= _NAME_LIMIT:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return f"{name[: _NAME_LIMIT - 13].rstrip('-')}-{digest}"

    def deploy(self, model_version: str, artifact_uri: str) -> None:
        """Create model and configuration, then create or update the endpoint (SageMaker swaps blue/green)."""
        cfg, name, sagemaker = self._settings, self._name(model_version), client("sagemaker")
        endpoint = self._describe()
        if endpoint is not None and (endpoint["EndpointConfigName"] == name or endpoint["EndpointStatus"] in _BUSY):
            return
        with _creating(f"model {name}"):
            sagemaker.create_model(
                ModelName=name,
                PrimaryContainer={"Image": cfg.sagemaker_image, "ModelDataUrl": artifact_uri},
                ExecutionRoleArn=cfg.sagemaker_role_arn,
            )
        variant = {
            "VariantName": model_version,
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": cfg.sagemaker_serve_instance_type,
        }
        with _creating(f"endpoint configuration {name}"):
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        call = sagemaker.create_endpoint if endpoint is None else sagemaker.update_endpoint
        with _creating(f"endpoint {self._endpoint}"):
            call(EndpointName=self._endpoint, EndpointConfigName=name)

    def _describe(self) -> dict[str, Any] | None:
        what = f"endpoint {self._endpoint}"
        # every tick asks: without a client of the SDK
        return _found(
            lambda: _SAGEMAKER.call("DescribeEndpoint", {"EndpointName": self._endpoint}, f"SageMaker {what}"), what
        )

    def serving_version(self) -> str | None:
        """The variant that takes traffic; during an update SageMaker still reports the old one."""
        endpoint = self._describe()
        if endpoint is None or endpoint["EndpointStatus"] == "Creating":
            return None
        if endpoint["EndpointStatus"] == "Failed":
            raise ModelError(
                f"SageMaker endpoint {self._endpoint} failed: {endpoint.get('FailureReason', 'no reason given')}"
            )
        return str(endpoint["ProductionVariants"][0]["VariantName"])

    def endpoint_url(self) -> str:
        """The HTTP face in front of the endpoint, or its name for the SageMaker runtime."""
        return self._settings.aws_endpoint_url or f"sagemaker:{self._endpoint}"


def _found(describe: Callable[[], dict[str, Any]], what: str) -> dict[str, Any] | None:
    """The description, or None when SageMaker says (in a ValidationException) that there is no such thing."""
    try:
        with translated(f"SageMaker {what}"):
            return describe()
    except NotFoundError:
        return None
    except UnavailableError as exc:
        words = str(exc).lower()
        if "validationexception" in words and ("not found" in words or "could not find" in words):
            return None
        raise


@contextmanager
def _creating(what: str) -> Iterator[None]:
    """Runs a create; that something of the same name exists already is what a repeated call wants."""
    try:
        with translated(f"SageMaker {what}"):
            yield
    except UnavailableError as exc:
        words = str(exc).lower()
        if "resourceinuse" not in words and "already exist" not in words:
            raise
