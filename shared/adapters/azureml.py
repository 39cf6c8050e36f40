"""Azure ML behind the ports, over its REST interface: command jobs and managed online endpoints.

The official package for it imports for seconds and weighs 67 MB or more, too much for a function; the few requests
we need are small. Requests and answers are those of Microsoft.MachineLearningServices, api-version below.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import shlex
from typing import Any, Final

import urllib3

from shared.adapters import azure
from shared.adapters.http import pool
from shared.contracts import TrainingJob
from shared.errors import ModelError, NotFoundError, UnavailableError
from shared.ports import ObjectStore, TrainingStatus
from shared.settings import Settings

API_VERSION: Final = "2024-10-01"
_PROVIDER: Final = "providers/Microsoft.MachineLearningServices/workspaces"
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
_DEPLOYMENT_NAME: Final = re.compile(r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$")
_TAG: Final = "opportune-version"


class Workspace:
    """Authorised JSON requests to one Azure ML workspace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = pool()
        self.path = (
            f"/subscriptions/{settings.azureml_subscription}/resourceGroups/{settings.azureml_resource_group}"
            f"/{_PROVIDER}/{settings.azureml_workspace}"
        )

    def _token(self) -> str:
        if self._settings.azureml_token:
            return self._settings.azureml_token
        return azure.entra().token("https://management.azure.com")

    def call(self, method: str, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`method` on `resource` (a path below the workspace).

        Raises:
            NotFoundError: 404.
            UnavailableError: no answer, or any other status of 300 and up; carries the service's message.
        """
        url = f"{self._settings.azureml_url}{self.path}/{resource}?api-version={API_VERSION}"
        what = f"Azure ML {resource}"
        try:
            answer = self._pool.request(
                method,
                url,
                body=json.dumps(body).encode() if body is not None else None,
                headers={"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"},
                timeout=urllib3.Timeout(connect=3.0, read=20.0),
            )
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError(what, str(exc)) from exc
        if answer.status == 404:
            raise NotFoundError(f"{what} does not exist")
        if answer.status >= 300:
            raise UnavailableError(what, f"HTTP {answer.status}: {answer.data[:300].decode(errors='replace')}")
        if not answer.data:
            return {}
        try:
            return dict(json.loads(answer.data))
        except (ValueError, TypeError) as exc:
            raise UnavailableError(what, "the answer is not a JSON object") from exc

    def get(self, resource: str) -> dict[str, Any] | None:
        """The resource, or None when there is none."""
        try:
            return self.call("GET", resource)
        except NotFoundError:
            return None


class AzureMLTraining:
    """TrainingService on Azure ML command jobs; the job's name is our job_id."""

    def __init__(self, settings: Settings, objects: ObjectStore) -> None:
        self._settings = settings
        self._objects = objects
        self._workspace = Workspace(settings)

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Submit the job unless one of that name exists (its definition may not be sent twice once it ran)."""
        if self._workspace.get(f"jobs/{job.job_id}") is None:
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
        properties = found["properties"]
        state = _STATES.get(properties["status"])
        if state is None:
            raise UnavailableError(
                "Azure ML", f"job {job_id} has the unknown status {properties['status']!r}; upgrade opportune"
            )
        details: dict[str, Any] = properties.get("properties") or {}
        return TrainingStatus(
            state,
            str(details.get("failureReason") or f"Azure ML says {properties['status']}"),
            _posix(details.get("StartTimeUtc")),
            _posix(details.get("EndTimeUtc")),
        )

    def stop(self, job_id: str) -> None:
        """Ask for a stop; the job reports `stopped` later."""
        self._workspace.call("POST", f"jobs/{job_id}/cancel")

    def artifact(self, job_id: str) -> bytes:
        """model.tar.gz, which the container leaves in its model output."""
        return self._objects.get(f"jobs/{job_id}/model/model.tar.gz")


class AzureMLHost:
    """ModelHost on one managed online endpoint: a deployment per version, traffic moves when it is ready."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workspace = Workspace(settings)
        self._endpoint = f"onlineEndpoints/{settings.azureml_endpoint}"

    def _deployment(self, model_version: str) -> str:
        if _DEPLOYMENT_NAME.match(model_version):
            return model_version
        return f"v{hashlib.sha256(model_version.encode()).hexdigest()[:24]}"

    def deploy(self, model_version: str, artifact_uri: str) -> None:
        """Take the next step towards `model_version`: create its deployment, or move the traffic once it is ready."""
        name = self._deployment(model_version)
        resource = f"{self._endpoint}/deployments/{name}"
        found = self._workspace.get(resource)
        if found is None:
            self._create(resource, model_version, artifact_uri)
            found = self._workspace.get(resource) or {"properties": {}}
        state = found["properties"].get("provisioningState", "Creating")
        if state in ("Failed", "Canceled"):
            raise ModelError(f"Azure ML deployment {name} of version {model_version} is {state}")
        if state != "Succeeded":
            return
        endpoint = self._workspace.call("GET", self._endpoint)
        if endpoint["properties"].get("traffic") == {name: 100}:
            return
        properties = {"authMode": endpoint["properties"].get("authMode", "AADToken"), "traffic": {name: 100}}
        self._workspace.call(
            "PUT",
            self._endpoint,
            {
                "location": endpoint.get("location", ""),
                "identity": endpoint.get("identity") or {"type": "SystemAssigned"},
                "properties": properties,
            },
        )

    def _create(self, resource: str, model_version: str, artifact_uri: str) -> None:
        cfg = self._settings
        model = f"models/{cfg.azureml_endpoint}/versions/{model_version}"
        if self._workspace.get(model) is None:
            self._workspace.call("PUT", model, {"properties": {"modelType": "custom_model", "modelUri": artifact_uri}})
        environment, _, version = cfg.azureml_environment.partition(":")
        endpoint = self._workspace.call("GET", self._endpoint)
        self._workspace.call(
            "PUT",
            resource,
            {
                "location": endpoint.get("location", ""),
                "sku": {"name": "Default", "capacity": 1},
                "tags": {_TAG: model_version},
                "properties": {
                    "endpointComputeType": "Managed",
                    "instanceType": cfg.azureml_serve_instance_type,
                    "model": f"{self._workspace.path}/{model}",
                    "environmentId": f"{self._workspace.path}/environments/{environment}/versions/{version or '1'}",
                },
            },
        )

    def serving_version(self) -> str | None:
        """The version of the deployment that takes all traffic."""
        endpoint = self._workspace.get(self._endpoint)
        if endpoint is None:
            return None
        taking = [name for name, share in (endpoint["properties"].get("traffic") or {}).items() if share == 100]
        if not taking:
            return None
        found = self._workspace.call("GET", f"{self._endpoint}/deployments/{taking[0]}")
        return str((found.get("tags") or {}).get(_TAG, taking[0]))

    def endpoint_url(self) -> str:
        """The HTTP face in front of the endpoint, or the endpoint's own scoring address, which wants a token."""
        if self._settings.azure_endpoint_url:
            return self._settings.azure_endpoint_url
        scoring = self._workspace.call("GET", self._endpoint)["properties"].get("scoringUri")
        if not scoring:
            raise UnavailableError("Azure ML", f"{self._endpoint} has no scoring address yet")
        return f"azureml:{scoring}"


def _posix(text: str | None) -> float | None:
    """An Azure time stamp ("2026-01-02 03:04:05" or ISO 8601, UTC) in POSIX seconds."""
    if not text:
        return None
    moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
