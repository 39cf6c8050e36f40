"""The embedded Lambda: feeds the packaged functions, in Lambda's own runtime, from the clock, the queues and HTTP.

    python -m local.clouds.aws.host --http-port P --package build/packages/aws

The functions get the OPPORTUNE_ and AWS_ variables of this process; AWS_ENDPOINT_URL names the embedded AWS.
"""

from __future__ import annotations

import argparse
import os
import threading
from pathlib import Path
from typing import Final

from local.clouds.aws.gateway import Gateway
from local.clouds.aws.resources import EVENTS_QUEUE
from local.clouds.aws.triggers import run_events, run_queue, run_schedule
from local.processes.logs import log_to_stderr
from local.processes.wsgi import serve
from local.runtimes import LambdaFunction
from local.runtimes.limits import lambda_limits
from local.runtimes.process import deployed_env
from shared.settings import Settings

#: option -> the function's name in serverless.yml, which says what it is given
FUNCTIONS: Final = {"schedule": "schedule", "retrain": "retrain", "events": "training-events", "http": "http"}
#: requests that are answered side by side; Lambda's own limit is a thousand, one machine's is here
HTTP_CONCURRENCY: Final = 6


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--package", type=Path, required=True, help="folder with the functions' code")
    parser.add_argument("--schedule", default="functions.aws.schedule.handler", help="dotted name of a handler")
    parser.add_argument("--retrain", default="functions.aws.retrain.handler")
    parser.add_argument("--events", default="functions.aws.training_events.handler")
    parser.add_argument("--http", default="functions.aws.http.handler")
    parser.add_argument("--events-queue", default=EVENTS_QUEUE)
    options = parser.parse_args()
    log_to_stderr()
    settings = Settings.from_env(os.environ)
    # Tracing off, as the deployment has it unless it is asked for.
    env = {"POWERTOOLS_TRACE_DISABLED": "true", **deployed_env("AWS_", "POWERTOOLS_")}
    limits = lambda_limits()
    functions = {
        name: LambdaFunction(
            options.package.resolve(),
            getattr(options, name),
            env,
            timeout_s=limits[deployed].timeout_s,
            memory_mib=limits[deployed].memory_mib,
            concurrency=HTTP_CONCURRENCY if name == "http" else 1,
        )
        for name, deployed in FUNCTIONS.items()
    }

    stop = threading.Event()
    for target, arguments in (
        (run_schedule, (functions["schedule"], settings.slot_seconds, stop)),
        (run_queue, (functions["retrain"], settings.queue, stop)),
        (run_events, (functions["events"], options.events_queue, stop)),
    ):
        # Daemons: a long poll must not hold up the end of the process.
        threading.Thread(target=target, args=arguments, name=target.__name__, daemon=True).start()
    try:
        serve(Gateway(functions["http"]), options.http_port)
    finally:
        stop.set()
        for function in functions.values():
            function.close()


if __name__ == "__main__":
    main()
