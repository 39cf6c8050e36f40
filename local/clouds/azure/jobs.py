"""Azure ML command jobs that really run: the job's own command line, on this machine."""

from __future__ import annotations

import copy
import datetime as dt
import json
import logging
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from azure.core.exceptions import AzureError

from local.clouds.azure.storage import Datastore
from local.clouds.faults import JOB, Faults
from local.processes.container import ROOT, ContainerProcess, Ended, container_log, image_env

log = logging.getLogger(__name__)

TERMINAL: Final = ("Completed", "Failed", "Canceled")
_PLACE: Final = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
_DURATION: Final = re.compile(r"^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?$")


class BadJobError(ValueError):
    """The job's definition is wrong; the message is the service's answer."""


@dataclass
class Job:
    """One job: the body it was created with, and what became of it."""

    name: str
    workspace: str  # the resource id of its workspace
    body: dict[str, Any]
    created: dt.datetime
    status: str = "Queued"
    details: dict[str, str] = field(default_factory=dict)
    process: ContainerProcess | None = None
    cancel_requested: bool = False

    @property
    def resource(self) -> dict[str, Any]:
        """The job as GET shows it."""
        properties = copy.deepcopy(self.body["properties"])
        properties |= {"status": self.status, "properties": dict(self.details), "services": {}}
        return {
            "id": f"{self.workspace}/jobs/{self.name}",
            "name": self.name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": properties,
            "systemData": {"createdAt": self.created.isoformat(), "createdByType": "Application"},
        }


class JobRunner:
    """Keeps the jobs of a workspace and runs them one after the other."""

    def __init__(self, work_dir: Path, datastore: Datastore, event_grid_url: str, faults: Faults) -> None:
        self._work_dir = work_dir
        self._datastore = datastore
        self._event_grid_url = event_grid_url
        self._faults = faults
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")
        work_dir.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> Job | None:
        """The job of that name."""
        return self._jobs.get(name)

    def create(self, name: str, workspace: str, body: dict[str, Any]) -> tuple[Job, bool]:
        """The job of that name and whether it is new; a second create with the same command changes nothing.

        Raises:
            BadJobError: the command names what there is not, or a job of that name exists with another command.
        """
        properties = body["properties"]
        for kind, key in _PLACE.findall(properties["command"]):
            if key not in (properties.get(kind) or {}):
                raise BadJobError(f"the command names {kind}.{key}, which is not in properties.{kind}")
        seconds((properties.get("limits") or {}).get("timeout"))
        with self._lock:
            found = self._jobs.get(name)
            if found:
                if found.body["properties"]["command"] != properties["command"]:
                    raise BadJobError(f"job {name} exists, and its definition cannot be changed")
                return found, False
            job = Job(name, workspace, body, dt.datetime.now(dt.UTC))
            self._jobs[name] = job
        self._pool.submit(self._run, job).add_done_callback(_log_failure)
        return job, True

    def cancel(self, job: Job) -> None:
        """Ask for the end of a job; ended ones stay as they are."""
        with self._lock:
            if job.status in TERMINAL:
                return
            job.cancel_requested = True
            job.status = "CancelRequested"
            if job.process:
                job.process.stop()

    def kill(self) -> None:
        """End every container at once (the cloud itself goes away)."""
        with self._lock:
            for job in self._jobs.values():
                if job.process and job.status not in TERMINAL:
                    job.process.kill()

    def _run(self, job: Job) -> None:
        root = self._work_dir / job.name
        try:
            status, reason = self._execute(job, root)
        except (AzureError, OSError, ValueError) as exc:
            status, reason = "Failed", f"{type(exc).__name__}: {exc}"
        job.details["EndTimeUtc"] = _stamp()
        if reason:
            job.details["failureReason"] = reason[:1024]
        with self._lock:
            job.status = status
        log.info("job %s: %s %s", job.name, status, reason)
        shutil.rmtree(root, ignore_errors=True)
        self._announce(job)

    def _execute(self, job: Job, root: Path) -> tuple[str, str]:
        """Final status and the reason when it is not Completed."""
        if fault := self._faults.take(JOB):
            return "Failed", f"{fault.code}: {fault.message}"
        properties = job.body["properties"]
        shutil.rmtree(root, ignore_errors=True)
        places: dict[tuple[str, str], str] = {}
        for key, spec in (properties.get("inputs") or {}).items():
            places["inputs", key] = self._input(spec, root / "inputs" / key)
        outputs = {key: root / "outputs" / key for key in properties.get("outputs") or {}}
        for key, folder in outputs.items():
            folder.mkdir(parents=True)
            places["outputs", key] = str(folder)
            # A mount shows what an earlier attempt left behind, for instance a checkpoint.
            self._datastore.download(self._output_uri(job, key), folder)
        command = _PLACE.sub(lambda match: places[match.group(1), match.group(2)], properties["command"])
        env = {
            **image_env(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "AZUREML_RUN_ID": job.name,
            "AZUREML_EXPERIMENT_NAME": properties.get("experimentName", "Default"),
            **{name: str(value) for name, value in (properties.get("environmentVariables") or {}).items()},
        }
        output_log = container_log(f"azureml-{job.name}", self._work_dir)
        with self._lock:
            if job.cancel_requested:
                return "Canceled", "cancelled before it ran"
            job.status = "Running"
            job.details["StartTimeUtc"] = _stamp()
            job.process = ContainerProcess(["/bin/sh", "-c", command], env, ROOT, output_log)
        ended, code = job.process.wait(seconds((properties.get("limits") or {}).get("timeout")))
        for key, folder in outputs.items():
            self._datastore.upload(folder, self._output_uri(job, key))
        if ended is Ended.STOPPED:
            return "Canceled", "cancelled by request"
        if ended is Ended.TIMEOUT:
            return "Canceled", "ran longer than limits.timeout"
        if code == 0:
            return "Completed", ""
        words = output_log.read_text(errors="replace").strip().rpartition("\n")[2]
        return "Failed", f"Execution failed. User process exited with status code {code}. {words}"

    def _input(self, spec: dict[str, Any], folder: Path) -> str:
        """What stands for the input in the command: a local path, or the literal."""
        kind = spec.get("jobInputType")
        if kind == "literal":
            return str(spec["value"])
        if not self._datastore.download(spec["uri"], folder):
            raise ValueError(f"no data at {spec['uri']}")
        return str(next(p for p in folder.rglob("*") if p.is_file())) if kind == "uri_file" else str(folder)

    def _output_uri(self, job: Job, key: str) -> str:
        given = job.body["properties"]["outputs"][key].get("uri")
        return given or f"azureml://datastores/default/paths/azureml/{job.name}/{key}/"

    def _announce(self, job: Job) -> None:
        """The Event Grid events of a job's end, delivered again with growing pauses when they are not taken."""
        if not self._event_grid_url:
            return
        kinds = ["RunStatusChanged"] + (["RunCompleted"] if job.status == "Completed" else [])
        events = [_event(job, kind) for kind in kinds]
        threading.Thread(target=self._deliver_all, args=(events,), name="event-grid", daemon=True).start()

    def _deliver_all(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self._deliver(event)

    def _deliver(self, event: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "aeg-event-type": "Notification"}
        for attempt in range(10):
            request = urllib.request.Request(self._event_grid_url, json.dumps([event]).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=30):
                    return
            except OSError as exc:
                log.warning("event %s was not taken: %s", event["subject"], exc)
                time.sleep(min(30.0, 0.5 * 2**attempt))
        log.error("event %s is lost: nobody took it", event["subject"])


def _event(job: Job, kind: str) -> dict[str, Any]:
    experiment = job.body["properties"].get("experimentName", "Default")
    data: dict[str, Any] = {
        "experimentId": str(uuid.uuid5(uuid.NAMESPACE_URL, experiment)),
        "experimentName": experiment,
        "runId": job.name,
        "runType": "azureml.CommandJob",
        "runTags": job.body["properties"].get("tags") or {},
        "runProperties": dict(job.details),
    }
    if kind == "RunStatusChanged":
        data["runStatus"] = job.status
    return {
        "id": str(uuid.uuid4()),
        "topic": job.workspace,
        "subject": f"experiments/{data['experimentId']}/runs/{job.name}",
        "eventType": f"Microsoft.MachineLearningServices.{kind}",
        "eventTime": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z"),
        "data": data,
        "dataVersion": "1.0",
        "metadataVersion": "1",
    }


def seconds(duration: str | None) -> float:
    """An ISO 8601 duration in seconds; without one a week. Raises BadJobError for one that is not."""
    if not duration:
        return 7 * 86400.0
    match = _DURATION.match(duration)
    if not match or not any(match.groups()):
        raise BadJobError(f"limits.timeout {duration!r} is not an ISO 8601 duration")
    days, hours, minutes, rest = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _stamp() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _log_failure(future: Future[None]) -> None:
    if error := future.exception():
        log.error("a job was lost", exc_info=error)
