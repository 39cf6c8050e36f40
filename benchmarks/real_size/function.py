"""One invocation of a function, in this process: `finish JOB`, or `copy FROM PREFIX TO VERSION`.

It prints one JSON object: what was done, the memory of the process before, and the most that was ever resident.

The stores are real adapters over the stand-ins. What the clouds' management would say is said here: the training job
has succeeded, the endpoint is in service.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import functions.aws.training_events  # noqa: F401 - the memory of the function includes what it loads
from functions import bootstrap
from functions.clouds import Deps
from functions.retraining.copying import copy_model
from functions.scheduling.tick import training_finished
from shared.adapters.released import ReleasedHost
from shared.contracts import CLOUDS, TrainingJob
from shared.settings import Settings
from shared.values import HostState, TrainingStatus


def output_prefix(job_id: str) -> str:
    """Where the training left its model's files."""
    return f"jobs/{job_id}/output/model/"


class Finished:
    """A training service whose jobs have all succeeded."""

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Nothing is started here."""

    def status(self, job_id: str) -> TrainingStatus:
        """It succeeded just now."""
        now_s = time.time()
        return TrainingStatus("succeeded", "", now_s - 600.0, now_s)

    def stop(self, job_id: str) -> None:
        """Nothing runs."""

    def model_prefix(self, job_id: str) -> str:
        """As SageMaker leaves it."""
        return output_prefix(job_id)


class InService:
    """An endpoint's management."""

    def state(self) -> HostState:
        """It can answer."""
        return HostState(None, "http://stand-in")


def dependencies(settings: Settings) -> Deps:
    """Those of the function, management apart."""
    nothing: Any = None
    clouds = {}
    for cloud in CLOUDS:
        real = bootstrap.cloud_services(cloud, settings)
        host = ReleasedHost(settings.service, InService(), real.objects)
        clouds[cloud] = real._replace(training=Finished(), host=host)
    return Deps(settings=settings, clouds=clouds, metrics=nothing, policy=nothing, notifier=None)


def resident_mb(which: str, process: str = "self") -> float:
    """VmRSS (now) or VmHWM (most ever) of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) / 1024


def main() -> None:
    """Do it and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("finish").add_argument("job_id")
    copy = actions.add_parser("copy")
    copy.add_argument("source", choices=CLOUDS)
    copy.add_argument("prefix")
    copy.add_argument("target", choices=CLOUDS)
    copy.add_argument("version")
    options = parser.parse_args()
    deps = dependencies(Settings.from_env(os.environ))
    for services in deps.clouds.values():
        list(services.objects.entries("nothing/"))  # an idle function has its SDKs loaded
    idle_mb = resident_mb("VmRSS")
    if options.action == "finish":
        record = training_finished(deps, options.job_id, time.time())
        if record is None:
            raise SystemExit(f"{options.job_id} is no job of ours")
        done = {"status": record.status.value, "asked": sorted(record.asked), "reason": record.reason}
        done["waits"] = str(record.waits)
    else:
        guarded = deps.guarded(deps.settings.tick_deadline_seconds)
        source, target = (guarded.clouds[cloud].objects for cloud in (options.source, options.target))
        done = {"left": copy_model(source, options.prefix, target, options.version, guarded.deadline)}
    print(json.dumps({**done, "idle_mb": idle_mb, "peak_mb": resident_mb("VmHWM")}))


if __name__ == "__main__":
    main()
