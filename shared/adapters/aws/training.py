"""SageMaker training jobs behind the ports."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from shared.adapters.answers import understood
from shared.adapters.aws.session import AwsSession, creating, described, translated
from shared.contracts import TrainingJob
from shared.errors import ModelError, NotFoundError, UnavailableError
from shared.settings import Settings
from shared.values import TrainingStatus

#: every status SageMaker documents -> ours; anything else is an error, never "finished"
_STATES: Final = {
    "InProgress": "running",
    "Stopping": "running",
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopped": "stopped",
}


#: how SageMaker says that it had no machine of the kind
_NO_CAPACITY: Final = re.compile(r"CapacityError|Insufficient(Instance)?Capacity|MaxWaitTimeExceeded")


class SageMakerTraining:
    """TrainingService on SageMaker training jobs; the job's name is our job_id."""

    def __init__(self, session: AwsSession, settings: Settings) -> None:
        self._session = session
        self._settings = settings

    def _describe(self, job_id: str) -> dict[str, Any] | None:
        what = f"SageMaker job {job_id}"
        sagemaker = functools.partial(self._session.client, "sagemaker")
        found = described(what, lambda: sagemaker().describe_training_job(TrainingJobName=job_id))
        with understood(what):
            if found is not None:
                _ = found["TrainingJobStatus"]  # an answer without it says nothing, least of all that there is one
        return found

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Create the training job unless one of that name exists."""
        if self._describe(job.job_id) is not None:
            return
        with creating(f"SageMaker training job {job.job_id}"):
            sagemaker = self._session.client("sagemaker")
            _ = sagemaker.create_training_job(**self.request(job, data_uri, parent_uri))["TrainingJobArn"]

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
            # the files as they are, each an object of its own, below jobs/{job_id}/output/model/
            "OutputDataConfig": {"S3OutputPath": f"{bucket}/jobs", "CompressionType": "NONE"},
            "CheckpointConfig": {"S3Uri": f"{bucket}/jobs/{job.job_id}/checkpoints"},
            "ResourceConfig": {
                "InstanceType": cfg.sagemaker_instance_type,
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": seconds, **waiting},
            "EnableManagedSpotTraining": cfg.sagemaker_spot,
            "Environment": {"OPPORTUNE_TRACE_ID": job.trace_id, "OPPORTUNE_JOB_ID": job.job_id},
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
        with understood(f"SageMaker job {job_id}"):
            return self._told(job_id, found)

    def _told(self, job_id: str, found: dict[str, Any]) -> TrainingStatus:
        state = _STATES.get(found["TrainingJobStatus"])
        if state is None:
            raise UnavailableError(
                "SageMaker", f"job {job_id} has the unknown status {found['TrainingJobStatus']!r}; upgrade opportune"
            )
        started, finished = found.get("TrainingStartTime"), found.get("TrainingEndTime")
        reason, phase = found.get("FailureReason") or "", found.get("SecondaryStatus") or ""
        billed = found.get("BillableTimeInSeconds")
        return TrainingStatus(
            state,
            reason or phase or state,
            started.timestamp() if started else None,
            finished.timestamp() if finished else None,
            billed_s=float(billed) if billed is not None else None,
            # a spot job that nobody had a machine for stops by itself, which is not a person's stop
            capacity=state in ("failed", "stopped")
            and (phase == "MaxWaitTimeExceeded" or bool(_NO_CAPACITY.findall(reason))),
        )

    def stop(self, job_id: str) -> None:
        """Ask for a stop; the job reports `stopped` later."""
        with translated(f"SageMaker job {job_id}"):
            self._session.client("sagemaker").stop_training_job(TrainingJobName=job_id)

    def model_prefix(self, job_id: str) -> str:
        """Where the finished job's uncompressed output lies in the bucket."""
        found = self._describe(job_id)
        with understood(f"SageMaker job {job_id}"):
            uri = str(((found or {}).get("ModelArtifacts") or {}).get("S3ModelArtifacts") or "")
        if not uri:
            raise NotFoundError(f"SageMaker job {job_id} has no model artifact")
        prefix = uri.removeprefix(f"s3://{self._settings.bucket}/")
        if prefix == uri or uri.endswith(".tar.gz"):
            raise ModelError(f"the model of SageMaker job {job_id} is no folder in the bucket: it is {uri}")
        return f"{prefix.rstrip('/')}/"
