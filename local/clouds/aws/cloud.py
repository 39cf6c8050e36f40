"""The embedded AWS: a moto server whose SageMaker trains and serves on this machine.

    python -m local.clouds.aws.cloud --port P

OPPORTUNE_LOCAL_WORK (a folder, also of local.clouds.aws.runtime, which answers for the endpoints) comes from the
environment.
"""

from __future__ import annotations

import argparse
import os
import signal
from types import FrameType

from werkzeug.serving import make_server

from local.clouds.aws import sagemaker
from local.clouds.aws.endpoints import EndpointDriver
from local.clouds.aws.front import Front
from local.clouds.aws.training import TrainingRunner, work_dir
from local.clouds.faults import Faults
from local.compat import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from local.processes.logs import log_to_stderr


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    log_to_stderr()
    # The runner is a client of this very server.
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    for name, value in local_credentials().items():
        os.environ.setdefault(name, value)

    faults = Faults()
    runner, driver = TrainingRunner(work_dir() / "training", faults), EndpointDriver(work_dir())
    sagemaker.install(runner, driver)

    def leave(number: int, frame: FrameType | None) -> None:
        runner.kill()
        driver.kill()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    app = Front(DomainDispatcherApplication(create_backend_app), faults)
    make_server("127.0.0.1", port, app, threaded=True, request_handler=MotoRequestHandler).serve_forever()


def local_credentials() -> dict[str, str]:
    """What the SDK wants to see; moto accepts anything."""
    return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}


if __name__ == "__main__":
    main()
