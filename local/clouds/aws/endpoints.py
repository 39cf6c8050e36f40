"""SageMaker endpoints that start what CreateModel says: containers with its environment, nothing of ours beside it."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError  # noqa: TID251 - plays the cloud, not a use case

from local.clouds.aws.runtime import ROUTES
from local.clouds.aws.training import download, service_env
from local.compat import running_variants, utcnow
from local.processes.container import container_log, image_command
from local.processes.fleet import GRACE_S, Container, Fleet
from local.processes.routing_table import RoutingTable, Target

log = logging.getLogger(__name__)

#: SageMaker's own limit of a container's start, when the variant names none
STARTUP_S: Final = 480.0
#: InvokeEndpoint's limit
TIMEOUT_S: Final = 60.0
#: a state that takes minutes in AWS is seen here at least this long
STATE_S: Final = 0.3


class EndpointDriver:
    """The endpoints' containers: new ones are made beside those that answer, and take their place when healthy."""

    def __init__(self, work_dir: Path) -> None:
        self._work = work_dir / "endpoints"
        self._table = RoutingTable(work_dir / ROUTES)
        self._lock = threading.RLock()
        #: endpoint -> variant -> (weight, its containers); what answers now
        self._running: dict[str, dict[str, tuple[float, Fleet]]] = {}
        self._starting: dict[str, list[Fleet]] = {}
        self._deleted: set[str] = set()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="endpoint")
        self._publish()

    def submit(self, endpoint: Any, config: Any, model_of: Callable[[str], Any]) -> None:
        """Start moving `endpoint` to `config`; the caller set its status to Creating or Updating."""
        self._deleted.discard(endpoint.endpoint_name)
        self._pool.submit(self._move, endpoint, config, model_of).add_done_callback(_log_failure)

    def delete(self, name: str, forget: Callable[[], None]) -> None:
        """End the endpoint's containers, then `forget` it; the caller set its status to Deleting."""
        self._deleted.add(name)
        self._pool.submit(self._delete, name, forget).add_done_callback(_log_failure)

    def pids(self, name: str) -> list[int]:
        """The processes behind an endpoint."""
        with self._lock:
            return [pid for _, fleet in self._running.get(name, {}).values() for pid in fleet.pids()]

    def kill(self) -> None:
        """End every container (the cloud itself goes away)."""
        with self._lock:
            fleets = [fleet for variants in self._running.values() for _, fleet in variants.values()]
            fleets += [fleet for starting in self._starting.values() for fleet in starting]
        for fleet in fleets:
            threading.Thread(target=fleet.stop, args=(1.0,), daemon=True).start()
        until = time.monotonic() + 2.0
        while any(fleet.pids() for fleet in fleets) and time.monotonic() < until:
            time.sleep(0.05)

    def _move(self, endpoint: Any, config: Any, model_of: Callable[[str], Any]) -> None:
        name, creating = endpoint.endpoint_name, endpoint.endpoint_status == "Creating"
        before = self._running.get(name, {})
        made: dict[str, tuple[float, Fleet]] = {}
        reason = ""
        try:
            for variant in config.production_variants:
                label = f"{name}-{variant['VariantName']}"
                fleet = Fleet(self._container(label, model_of(variant["ModelName"])), self._publish)
                made[variant["VariantName"]] = (variant.get("InitialVariantWeight", 1.0), fleet)
                with self._lock:
                    self._starting.setdefault(name, []).append(fleet)
                limit_s = float(variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_S))
                limit_s = min(limit_s, float(os.environ.get("OPPORTUNE_LOCAL_HEALTH_SECONDS", limit_s)))
                if why := fleet.start(variant.get("InitialInstanceCount", 1), limit_s):
                    reason = (
                        f"The primary container for production variant {variant['VariantName']} {why}. "
                        "Please check CloudWatch logs for this endpoint."
                    )
                    break
            time.sleep(STATE_S)
        except (BotoCoreError, ClientError, OSError, tarfile.TarError) as exc:
            reason = f"{exc}"[:1024]
        with self._lock:
            self._starting.pop(name, None)
            gone = name in self._deleted
            if not reason and not gone:
                self._running[name] = made
        if gone:
            _stop(made)
        elif reason:
            log.warning("endpoint %s: %s", name, reason)
            endpoint.failure_reason = reason[:1024]
            if not creating:  # it goes on with what it served before
                endpoint.endpoint_status = "RollingBack"
            _stop(made)
            time.sleep(STATE_S)
            endpoint.endpoint_status = "Failed" if creating else "InService"
        else:
            self._publish()
            variants = running_variants(endpoint, config.production_variants)
            for one in variants:
                one["CurrentWeight"] = one["DesiredWeight"] = made[one["VariantName"]][0]
            endpoint.production_variants = variants
            endpoint.endpoint_config_name = config.endpoint_config_name
            endpoint.failure_reason = None
            endpoint.endpoint_status = "InService"
            log.info("endpoint %s is in service", name)
            _stop(before)
        endpoint.last_modified_time = utcnow()

    def _container(self, label: str, model: Any) -> Container:
        """What an instance runs: the image's command and what CreateModel said."""
        described: dict[str, Any] = model.primary_container or next(iter(model.containers), {})
        env = {**service_env(), **(described.get("Environment") or {})}
        if uri := described.get("ModelDataUrl"):
            # in a container /opt/ml/model; on this machine the image's own option says where that is
            env["OPPORTUNE_SERVE_MODEL"] = str(self._model(label, uri))
        log_path = container_log(f"sagemaker-{label}", self._work)
        command = image_command("serve")
        return Container(label, command, env, ("SAGEMAKER_BIND_TO_PORT",), "/ping", self._work, log_path)

    def _model(self, label: str, uri: str) -> Path:
        folder = self._work / f"{label}-model"
        shutil.rmtree(folder, ignore_errors=True)
        download(uri, folder / "download")
        archive = folder / "download" / uri.rpartition("/")[2]
        if not archive.is_file():
            raise FileNotFoundError(f"Could not find model data at {uri}.")
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "model", filter="data")
        return folder / "model"

    def _delete(self, name: str, forget: Callable[[], None]) -> None:
        with self._lock:
            fleets = {str(number): (0.0, fleet) for number, fleet in enumerate(self._starting.get(name, []))}
            fleets |= self._running.pop(name, {})
        self._publish()
        _stop(fleets)
        time.sleep(STATE_S)
        forget()

    def _publish(self) -> None:
        """Tell the runtime who answers."""
        with self._lock:
            told = {
                name: tuple(
                    Target(name=variant, weight=weight, ports=tuple(fleet.ports()), timeout_s=TIMEOUT_S)
                    for variant, (weight, fleet) in variants.items()
                )
                for name, variants in self._running.items()
            }
            self._table.write(told)


def _stop(variants: dict[str, tuple[float, Fleet]]) -> None:
    for _, fleet in variants.values():
        fleet.stop(GRACE_S)


def _log_failure(future: Any) -> None:
    if error := future.exception():
        log.error("an endpoint's change was lost", exc_info=error)
