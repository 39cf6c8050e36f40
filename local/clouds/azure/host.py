"""The embedded Functions host: feeds the packaged app, in Azure's own worker, from clock, queues, Event Grid and HTTP.

    python -m local.clouds.azure.host --http-port P --package build/packages/azure

The app gets the OPPORTUNE_ and AWS_ variables of this process; OPPORTUNE_AZURE_STORAGE_CONNECTION names the queues'
account.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.clouds.azure.app import HostConfig, functions_of
from local.clouds.azure.storage import CONNECTION_VARIABLE
from local.clouds.azure.triggers import run_queue, run_timer
from local.clouds.azure.web import Web
from local.processes.logs import log_to_stderr
from local.processes.wsgi import serve
from local.runtimes import AzureWorker
from local.runtimes.limits import instance_memory_mib
from local.runtimes.process import deployed_env
from shared.errors import ConfigurationError
from shared.settings import Settings

log = logging.getLogger(__name__)


def _end_with(worker: AzureWorker, stop: threading.Event) -> None:
    """Without its worker the host is of no use; whoever supervises it sees it end."""
    code = worker.wait()
    if not stop.is_set():
        log.error("the worker ended with %d", code)
        os._exit(1)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--package", type=Path, required=True, help="folder with function_app.py and host.json")
    options = parser.parse_args()
    log_to_stderr()
    settings = Settings.from_env(os.environ)
    if not settings.azure_storage_connection:
        raise ConfigurationError(CONNECTION_VARIABLE, None, "a storage account's connection string")
    package = options.package.resolve()
    config = HostConfig.read(package / "host.json")

    stop = threading.Event()
    with AzureWorker(package, deployed_env("AWS_"), memory_mib=instance_memory_mib()) as worker:
        threading.Thread(target=_end_with, args=(worker, stop), name="worker", daemon=True).start()
        functions = functions_of(worker, config)
        for function in functions:
            target: Callable[..., None]
            arguments: tuple[Any, ...]
            if function.trigger == "timerTrigger":
                target, arguments = run_timer, (function, settings.slot_seconds, stop)
            elif function.trigger == "queueTrigger":
                target, arguments = run_queue, (function, settings.azure_storage_connection, config, stop)
            else:
                continue
            threading.Thread(target=target, args=arguments, name=function.name, daemon=True).start()
        try:
            serve(Web(functions, config), options.http_port)
        finally:
            stop.set()


if __name__ == "__main__":
    main()
