"""The embedded AWS: a moto server whose SageMaker trains and serves on this machine.

    python -m local.clouds.aws.cloud --port P

OPPORTUNE_LOCAL_WORK (a folder), OPPORTUNE_LOCAL_SERVE_URL and OPPORTUNE_ADMIN_TOKEN (the serving process behind
the SageMaker endpoint) come from the environment.
"""

from __future__ import annotations

import argparse
import os
import signal
from types import FrameType

from werkzeug.serving import make_server

from local.clouds.aws import sagemaker
from local.clouds.aws.endpoints import EndpointDriver
from local.clouds.aws.training import TrainingRunner, work_dir
from local.compat import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from local.processes.logs import log_to_stderr
from local.processes.serving_admin import ServingAdmin


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

    runner = TrainingRunner(work_dir() / "training")
    sagemaker.install(runner, EndpointDriver(work_dir(), ServingAdmin.from_env()))

    def leave(number: int, frame: FrameType | None) -> None:
        runner.kill()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    app = DomainDispatcherApplication(create_backend_app)
    make_server("127.0.0.1", port, app, threaded=True, request_handler=MotoRequestHandler).serve_forever()


def local_credentials() -> dict[str, str]:
    """What the SDK wants to see; moto accepts anything."""
    return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}


if __name__ == "__main__":
    main()
