"""TrainingService on Azure ML command jobs."""

from __future__ import annotations

import datetime as dt
import shlex
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.answers import understood
from shared.adapters.azure.errors import NO_CAPACITY
from shared.adapters.azure.workspace import Workspace
from shared.contracts import TrainingJob
from shared.errors import UnavailableError
from shared.ports import ObjectStore
from shared.settings import Settings
from shared.values import TrainingStatus

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

#: every status Azure ML documents but "Unknown" -> ours; anything else is an error, never "finished"
_STATES: Final = {
    "NotStarted": "running",
    "Starting": "running",
    "Provisioning": "running",
    "Preparing": "running",
    "Queued": "running",
    "Running": "running",
    "Finalizing": "running",
    "CancelRequested": "running",
    "NotResponding": "running",
    "Paused": "running",
    "Completed": "succeeded",
    "Failed": "failed",
    "Canceled": "stopped",
}


class AzureMLTraining:
    """TrainingService on Azure ML command jobs; the job's name is our job_id."""

    def __init__(self, settings: Settings, credential: TokenCredential, objects: ObjectStore) -> None:
        self._settings = settings
        self._objects = objects
        self._workspace = Workspace(settings, credential)

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Submit the job unless one of that name exists (its definition may not be sent twice once it ran)."""
        found = self._workspace.get(f"jobs/{job.job_id}")
        with understood(f"Azure ML job {job.job_id}"):
            if found is not None:
                _ = found["properties"]  # an answer without them says nothing, least of all that there is one
        if found is None:
            self._workspace.call("PUT", f"jobs/{job.job_id}", self.request(job, data_uri, parent_uri))

    def request(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> dict[str, Any]:
        """The body that creates the command job."""
        cfg, path = self._settings, self._workspace.path
        environment, _, version = cfg.azureml_environment.partition(":")
        inputs = {"data": {"jobInputType": "uri_folder", "uri": data_uri, "mode": "Download"}}
        command = (
            "python -m training_containers train --data ${{inputs.data}}"
            " --model ${{outputs.model}} --checkpoints ${{outputs.checkpoints}}"
        )
        if parent_uri:
            inputs["parent"] = {"jobInputType": "uri_folder", "uri": parent_uri, "mode": "Download"}
            command += " --parent ${{inputs.parent}}"
        for name, value in sorted(job.hyperparameters.items()):
            command += f" --hyperparameter {shlex.quote(f'{name}={value}')}"
        outputs = {
            name: {
                "jobOutputType": "uri_folder",
                "uri": self._objects.uri(f"jobs/{job.job_id}/{name}/"),
                "mode": "ReadWriteMount",
            }
            for name in ("model", "checkpoints")
        }
        return {
            "properties": {
                "jobType": "Command",
                "displayName": job.job_id,
                "experimentName": f"opportune-{job.service}",
                "command": command,
                "environmentId": f"{path}/environments/{environment}/versions/{version or '1'}",
                "computeId": f"{path}/computes/{cfg.azureml_compute}",
                "inputs": inputs,
                "outputs": outputs,
                "environmentVariables": {"OPPORTUNE_TRACE_ID": job.trace_id, "OPPORTUNE_JOB_ID": job.job_id},
                "limits": {"jobLimitsType": "Command", "timeout": f"PT{max(1, round(job.deadline_s))}S"},
                "resources": {"instanceCount": 1},
                "tags": {"opportune-service": job.service, "opportune-trace-id": job.trace_id},
            }
        }

    def status(self, job_id: str) -> TrainingStatus | None:
        """What Azure ML says of the job."""
        found = self._workspace.get(f"jobs/{job_id}")
        if found is None:
            return None
        with understood(f"Azure ML job {job_id}"):
            return self._told(job_id, found["properties"], found.get("error"))

    def _told(self, job_id: str, properties: dict[str, Any], error: Any) -> TrainingStatus:
        state = _STATES.get(properties["status"])
        if state is None:
            raise UnavailableError(
                "Azure ML", f"job {job_id} has the unknown status {properties['status']!r}; upgrade opportune"
            )
        details: dict[str, Any] = properties.get("properties") or {}
        reason = details.get("failureReason") or _words(properties.get("error") or error)
        reason = str(reason or f"Azure ML says {properties['status']}")
        return TrainingStatus(
            state,
            reason,
            _posix(details.get("StartTimeUtc")),
            _posix(details.get("EndTimeUtc")),
            capacity=state in ("failed", "stopped") and NO_CAPACITY.search(reason) is not None,
        )

    def stop(self, job_id: str) -> None:
        """Ask for a stop; the job reports `stopped` later."""
        self._workspace.call("POST", f"jobs/{job_id}/cancel")

    def model_prefix(self, job_id: str) -> str:
        """Where the container's model output lies in the container."""
        return f"jobs/{job_id}/model/"


def _words(error: Any) -> str:
    """Azure's code and message, where it gives them."""
    if not isinstance(error, dict):
        return ""
    return ": ".join(str(error[part]) for part in ("code", "message") if error.get(part))


def _posix(text: Any) -> float | None:
    """An Azure time stamp ("2026-01-02 03:04:05" or ISO 8601, UTC) in POSIX seconds."""
    if not text or not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None  # a form of its own: the time is not known, and the rest of the answer is
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
