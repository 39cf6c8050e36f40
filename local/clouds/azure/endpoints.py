"""Azure ML environments, models, managed online endpoints and their deployments, whose containers run here."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from azure.core.exceptions import AzureError

from local.clouds.azure.jobs import seconds
from local.clouds.azure.scoring import ROUTES
from local.clouds.azure.storage import Datastore
from local.processes.container import container_log, image_command
from local.processes.fleet import GRACE_S, Container, Fleet
from local.processes.routing_table import RoutingTable, Target

log = logging.getLogger(__name__)

#: a state that takes minutes in Azure is seen here at least this long
STATE_S: Final = 0.3
#: a request may take this long at most
MAX_TIMEOUT_S: Final = 180.0
_BUSY: Final = frozenset({"Creating", "Updating", "Deleting"})
Resource = dict[str, Any]


class WrongRequestError(ValueError):
    """400: what was asked for cannot be."""


class BusyError(ValueError):
    """409: it is being changed."""


class Endpoints:
    """Resources by path below the workspace (`onlineEndpoints/qa/deployments/blue`), each the body it was PUT with.

    A deployment's containers know what their image holds and what its environmentVariables say.
    """

    def __init__(self, work_dir: Path, datastore: Datastore, scoring_url: str) -> None:
        self._work = work_dir / "endpoints"
        self._datastore = datastore
        self._scoring_url = scoring_url
        self._lock = threading.RLock()
        self._resources: dict[str, Resource] = {}
        self._fleets: dict[str, Fleet] = {}  # deployment's path -> the containers that may answer
        self._starting: dict[str, Fleet] = {}
        self._table = RoutingTable(work_dir / ROUTES)
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="deployment")
        self._publish()

    def get(self, path: str) -> Resource | None:
        """A copy of the resource."""
        with self._lock:
            found = self._resources.get(path)
            return copy.deepcopy(found) if found else None

    def below(self, path: str) -> list[Resource]:
        """Copies of the resources of a collection."""
        with self._lock:
            return [copy.deepcopy(kept) for name, kept in self._resources.items() if name.rpartition("/")[0] == path]

    def put_asset(self, path: str, resource: Resource) -> None:
        """A version of a model or an environment. Raises WrongRequestError for one that exists with other content."""
        with self._lock:
            found = self._resources.get(path)
            if found and {**found, "properties": _told(found)} != {**resource, "properties": _told(resource)}:
                raise WrongRequestError(f"{path} exists, and a version cannot be changed")
            self._keep(path, resource, "Succeeded")

    def put_endpoint(self, path: str, resource: Resource) -> None:
        """Create an endpoint, or replace what is said of it, its traffic included: what is left out is reset.

        Raises:
            BusyError: it is being changed.
            WrongRequestError: the traffic is not whole, or names a deployment that cannot take any.
        """
        with self._lock:
            before = self._free(path)
            properties = resource["properties"]
            traffic = properties["traffic"]
            for name in traffic:
                found = self._resources.get(f"{path}/deployments/{name}")
                if not found or found["properties"]["provisioningState"] != "Succeeded":
                    raise WrongRequestError(f"deployment {name} is not ready for traffic")
            if sum(traffic.values()) not in (0, 100):
                raise WrongRequestError(
                    f"the traffic of all deployments adds up to {sum(traffic.values())}, not to 100"
                )
            properties["scoringUri"] = f"{self._scoring_url}/{path.rpartition('/')[2]}/score"
            self._keep(path, resource, "Updating" if before else "Creating")
        self._later(self._settle, path)

    def patch_endpoint(self, path: str, changes: Resource) -> None:
        """Other tags or another identity. Raises BusyError."""
        with self._lock:
            self._free(path)
            self._resources[path] |= changes

    def put_deployment(self, path: str, resource: Resource) -> None:
        """Create a deployment, or bring it to another definition; its containers are started anew.

        Raises:
            BusyError: it, or its endpoint, is being changed.
            WrongRequestError: its environment or model does not exist, or a limit is beyond what the service allows.
        """
        properties = resource["properties"]
        with self._lock:
            self._free(path.partition("/deployments/")[0])
            before = self._free(path)
            if seconds(properties["requestSettings"]["requestTimeout"]) > MAX_TIMEOUT_S:
                raise WrongRequestError(f"requestSettings.requestTimeout is above {MAX_TIMEOUT_S:g} s")
            self._asset(properties["environmentId"], "environments")
            if properties.get("model"):
                self._asset(properties["model"], "models")
            if before and before["properties"]["provisioningState"] == "Succeeded" and _same(before, resource):
                resource.update(before)
                return
            self._keep(path, resource, "Updating" if before else "Creating")
        self._later(self._deploy, path)

    def delete(self, path: str) -> bool:
        """End a deployment, or an endpoint with its deployments; False when there is none.

        Raises:
            BusyError: it is being changed.
            WrongRequestError: the deployment takes traffic.
        """
        endpoint, _, deployment = path.partition("/deployments/")
        with self._lock:
            if self._free(path) is None:
                return False
            if deployment and (self._resources[endpoint]["properties"].get("traffic") or {}).get(deployment):
                raise WrongRequestError(f"deployment {deployment} takes traffic; move it to another one first")
            doomed = [name for name in self._resources if name == path or name.startswith(f"{path}/")]
            for name in doomed:
                self._resources[name]["properties"]["provisioningState"] = "Deleting"
        self._later(self._remove, doomed)
        return True

    def logs(self, path: str) -> str:
        """What a deployment's containers wrote."""
        found = container_log(_label(path), self._work)
        return found.read_text(errors="replace") if found.exists() else ""

    def kill(self) -> None:
        """End every container (the cloud itself goes away)."""
        with self._lock:
            fleets = [*self._fleets.values(), *self._starting.values()]
        for fleet in fleets:
            threading.Thread(target=fleet.stop, args=(1.0,), daemon=True).start()
        until = time.monotonic() + 2.0
        while any(fleet.pids() for fleet in fleets) and time.monotonic() < until:
            time.sleep(0.05)

    # --- what takes its time

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        self._pool.submit(call, *arguments).add_done_callback(_log_failure)

    def _settle(self, path: str) -> None:
        time.sleep(STATE_S)
        with self._lock:
            if self._state(path) != "Deleting" and path in self._resources:
                self._resources[path]["properties"]["provisioningState"] = "Succeeded"
        self._publish()

    def _deploy(self, path: str) -> None:
        deployment = self.get(path)
        assert deployment is not None
        state, fleet = "Succeeded", None
        try:
            fleet = Fleet(self._container(path, deployment), self._publish)
            with self._lock:
                self._starting[path] = fleet
            if reason := fleet.start(deployment["sku"].get("capacity", 1), _limit_s(deployment["properties"])):
                log.warning("%s %s", path, reason)
                state = "Failed"
            time.sleep(STATE_S)
        except (AzureError, OSError, ValueError) as exc:
            log.warning("%s: %s", path, exc)
            state = "Failed"
        with self._lock:
            self._starting.pop(path, None)
            gone = self._state(path) in ("Deleting", "")
            surplus = fleet
            if not gone and state == "Succeeded" and fleet is not None:
                surplus, self._fleets[path] = self._fleets.get(path), fleet
            if not gone:
                self._resources[path]["properties"]["provisioningState"] = state
        self._publish()
        if surplus is not None:
            surplus.stop(GRACE_S)

    def _remove(self, doomed: list[str]) -> None:
        with self._lock:
            fleets = [self._fleets.pop(path) for path in doomed if path in self._fleets]
            fleets += [self._starting[path] for path in doomed if path in self._starting]
        self._publish()
        for fleet in fleets:
            fleet.stop(GRACE_S)
        time.sleep(STATE_S)
        with self._lock:
            for path in doomed:
                self._resources.pop(path, None)

    def _container(self, path: str, deployment: Resource) -> Container:
        """What an instance runs: the image's command and the deployment's own variables."""
        properties, label = deployment["properties"], _label(path)
        routes = self._asset(properties["environmentId"], "environments")["properties"].get("inferenceConfig")
        if not routes:
            raise ValueError("its environment has no inferenceConfig, and the deployment no scoring script")
        env = dict(properties["environmentVariables"])
        if model := properties.get("model"):
            env["AZUREML_MODEL_DIR"] = str(self._mount(label, model))
        command = image_command("serve")
        ports = ("PORT", "OPPORTUNE_SERVE_PORT")  # in a container the port of its routes; here many share the machine
        health = routes["readinessRoute"]["path"]
        return Container(label, command, env, ports, health, self._work, container_log(label, self._work))

    def _mount(self, label: str, model: str) -> Path:
        folder = self._work / f"{label}-model"
        shutil.rmtree(folder, ignore_errors=True)
        uri = self._asset(model, "models")["properties"]["modelUri"]
        if not self._datastore.download(uri, folder):
            raise ValueError(f"no model at {uri}")
        return folder

    def _publish(self) -> None:
        """Tell the scoring route who answers."""
        with self._lock:
            told: dict[str, tuple[Target, ...]] = {}
            for path, endpoint in self._resources.items():
                kind, _, name = path.partition("/")
                if kind != "onlineEndpoints" or "/" in name:
                    continue
                shares = endpoint["properties"].get("traffic") or {}
                found = [(key.rpartition("/")[2], key) for key in self._fleets if key.startswith(f"{path}/")]
                told[name] = tuple(self._target(label, key, shares.get(label, 0)) for label, key in found)
            self._table.write(told)

    def _target(self, name: str, path: str, share: float) -> Target:
        properties = self._resources[path]["properties"]
        asked = properties["requestSettings"]
        config = self._asset(properties["environmentId"], "environments")["properties"]["inferenceConfig"]
        return Target(
            name=name,
            weight=share,
            ports=tuple(self._fleets[path].ports()),
            path=config["scoringRoute"]["path"],
            timeout_s=seconds(asked["requestTimeout"]),
            concurrent=asked["maxConcurrentRequestsPerInstance"],
        )

    # --- what is kept

    def _keep(self, path: str, resource: Resource, state: str) -> None:
        resource["properties"]["provisioningState"] = state
        with self._lock:
            self._resources[path] = copy.deepcopy(resource)

    def _state(self, path: str) -> str:
        found = self._resources.get(path)
        return str(found["properties"]["provisioningState"]) if found else ""

    def _free(self, path: str) -> Resource | None:
        """The resource, when nothing is being changed about it."""
        if (state := self._state(path)) in _BUSY:
            raise BusyError(f"{path} is {state}; try again when it is not")
        return self._resources.get(path)

    def _asset(self, resource_id: str, kind: str) -> Resource:
        _, found, path = resource_id.partition(f"/{kind}/")
        kept = self._resources.get(f"{kind}/{path}") if found else None
        if kept is None:
            raise WrongRequestError(f"{resource_id} does not exist; it must be the id of one of {kind}")
        return kept


def _told(resource: Resource) -> Resource:
    return {name: value for name, value in resource["properties"].items() if name != "provisioningState"}


def _same(one: Resource, other: Resource) -> bool:
    return one.get("sku") == other.get("sku") and _told(one) == _told(other)


def _label(path: str) -> str:
    endpoint, _, deployment = path.removeprefix("onlineEndpoints/").partition("/deployments/")
    return f"azureml-{endpoint}-{deployment}"


def _limit_s(properties: Resource) -> float:
    """How long a container may take to be ready, by its probe."""
    probe = properties["readinessProbe"]
    limit_s = seconds(probe.get("initialDelay", "PT10S")) + probe.get("failureThreshold", 30) * seconds(
        probe.get("period", "PT10S")
    )
    return min(limit_s, float(os.environ.get("OPPORTUNE_LOCAL_HEALTH_SECONDS", limit_s)))


def _log_failure(future: Future[None]) -> None:
    if error := future.exception():
        log.error("a deployment's change was lost", exc_info=error)
