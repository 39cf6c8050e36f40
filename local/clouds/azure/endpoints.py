"""Azure ML models, managed online endpoints and their deployments, over one serving process."""

from __future__ import annotations

import copy
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError

from local.clouds.azure.storage import Datastore
from local.processes.serving_admin import ServingAdmin, unpack
from shared.errors import OpportuneError

log = logging.getLogger(__name__)


class Endpoints:
    """Resources by path below the workspace (`onlineEndpoints/qa/deployments/blue`), each the body it was PUT with.

    A new deployment loads its model beside the one that answers; traffic decides which one answers.
    """

    def __init__(self, work_dir: Path, datastore: Datastore, admin: ServingAdmin | None, scoring_url: str) -> None:
        self._work_dir = work_dir
        self._datastore = datastore
        self._admin = admin
        self._scoring_url = scoring_url
        self._lock = threading.RLock()
        self._resources: dict[str, dict[str, Any]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="deployment")

    def get(self, path: str) -> dict[str, Any] | None:
        """A copy of the resource."""
        with self._lock:
            found = self._resources.get(path)
            return copy.deepcopy(found) if found else None

    def deployments(self, endpoint: str) -> list[dict[str, Any]]:
        """Copies of the endpoint's deployments, each with its name."""
        prefix = f"{endpoint}/deployments/"
        with self._lock:
            found = {
                path.removeprefix(prefix): kept for path, kept in self._resources.items() if path.startswith(prefix)
            }
            return [{"name": name, **copy.deepcopy(kept)} for name, kept in found.items()]

    def put_model(self, path: str, resource: dict[str, Any]) -> None:
        """Register a model version."""
        self._keep(path, resource, "Succeeded")

    def put_deployment(self, path: str, resource: dict[str, Any]) -> None:
        """Create a deployment (Creating, later Succeeded or Failed); one that exists and works stays as it is."""
        with self._lock:
            found = self._resources.get(path)
            if found and found["properties"]["provisioningState"] in ("Creating", "Succeeded"):
                resource.update(found)
                return
            self._keep(path, resource, "Creating")
        self._pool.submit(self._create, path)

    def put_endpoint(self, path: str, resource: dict[str, Any]) -> None:
        """Create or change an endpoint, and move its traffic.

        Raises:
            OpportuneError: the traffic names no ready deployment, or the serving process refuses; nothing changes.
        """
        with self._lock:
            before = self._resources.get(path)
            properties = resource["properties"]
            traffic = properties.setdefault("traffic", before["properties"]["traffic"] if before else {})
            for name in traffic:
                self._ready(f"{path}/deployments/{name}", name)
            if not before or traffic != before["properties"]["traffic"]:
                self._route(path, traffic)
            properties["scoringUri"] = f"{self._scoring_url}/score"
            self._keep(path, resource, "Succeeded")

    def _keep(self, path: str, resource: dict[str, Any], state: str) -> None:
        resource["properties"]["provisioningState"] = state
        with self._lock:
            self._resources[path] = copy.deepcopy(resource)

    def _ready(self, path: str, name: str) -> None:
        found = self._resources.get(path)
        if not found or found["properties"]["provisioningState"] != "Succeeded":
            raise OpportuneError(f"deployment {name} is not ready for traffic")

    def _route(self, path: str, traffic: dict[str, int]) -> None:
        """The one serving process answers with the version that has the largest share."""
        if traffic and self._admin:
            name = max(traffic, key=lambda deployment: traffic[deployment])
            self._admin.activate(self._version(f"{path}/deployments/{name}"))

    def _version(self, path: str) -> str:
        """A deployment's model version; one without a model serves what came with its image, named like it."""
        model = self._resources[path]["properties"].get("model")
        return str(model or path).rpartition("/")[2]

    def _create(self, path: str) -> None:
        deployment = self.get(path)
        assert deployment is not None
        try:
            if model_id := deployment["properties"].get("model"):
                self._load(model_id)
            state = "Succeeded"
        except (OpportuneError, AzureError, OSError, ValueError) as exc:
            log.warning("%s: %s", path, exc)
            state = "Failed"
        self._keep(path, deployment, state)

    def _load(self, model_id: str) -> None:
        _, _, path = model_id.partition("/models/")
        model = self.get(f"models/{path}")
        if model is None:
            raise ValueError(f"no model {model_id}")
        version, uri = path.rpartition("/")[2], model["properties"]["modelUri"]
        folder = self._work_dir / "endpoint-models" / version
        shutil.rmtree(folder, ignore_errors=True)
        if not self._datastore.download(uri, folder / "download"):
            raise ValueError(f"no model at {uri}")
        archives = list((folder / "download").glob("*.tar.gz"))
        source = unpack(archives[0], folder / "model") if archives else folder / "download"
        if self._admin:
            self._admin.load(version, source)
