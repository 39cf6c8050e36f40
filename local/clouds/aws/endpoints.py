"""SageMaker endpoints whose updates really change what a serving process answers with."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.clouds.aws.training import download
from local.compat import running_variants, utcnow
from local.processes.serving_admin import ServingAdmin, unpack
from shared.errors import OpportuneError

log = logging.getLogger(__name__)


class EndpointDriver:
    """Brings an endpoint to its new configuration; goes back to the old one when that fails."""

    def __init__(self, work_dir: Path, admin: ServingAdmin | None) -> None:
        self._models = work_dir / "endpoint-models"
        self._admin = admin
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="endpoint")

    def submit(self, endpoint: Any, config: Any, model: Any) -> None:
        """Start moving `endpoint` to `config`, whose one variant serves `model`; the caller set its status."""
        self._pool.submit(self._move, endpoint, config, model)

    def _move(self, endpoint: Any, config: Any, model: Any) -> None:
        creating = endpoint.endpoint_status == "Creating"
        variant = config.production_variants[0]
        try:
            self._swap(variant["VariantName"], model.primary_container.get("ModelDataUrl"))
        except (BotoCoreError, ClientError, OpportuneError, OSError) as exc:
            # An endpoint that served before goes on serving its old variant, with the reason of the failure.
            endpoint.failure_reason = str(exc)[:1024]
            endpoint.endpoint_status = "Failed" if creating else "InService"
            log.warning("endpoint %s: %s", endpoint.endpoint_name, exc)
        else:
            endpoint.production_variants = running_variants(endpoint, config.production_variants)
            endpoint.endpoint_config_name = config.endpoint_config_name
            endpoint.failure_reason = None
            endpoint.endpoint_status = "InService"
            log.info("endpoint %s serves %s", endpoint.endpoint_name, variant["VariantName"])
        endpoint.last_modified_time = utcnow()

    def _swap(self, version: str, artifact_uri: str | None) -> None:
        if self._admin is None:
            return
        if artifact_uri:  # without one, the version came with the image
            folder = self._models / version
            shutil.rmtree(folder, ignore_errors=True)
            download(artifact_uri, folder / "download")
            archive = folder / "download" / artifact_uri.rpartition("/")[2]
            if not archive.exists():
                raise FileNotFoundError(f"no model data at {artifact_uri}")
            self._admin.load(version, unpack(archive, folder / "model"))
        self._admin.activate(version)
