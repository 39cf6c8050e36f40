"""The embedded Lambda: feeds the real handlers from the clock, the queues and HTTP.

    python -m local.clouds.aws.host --http-port P

Settings come from OPPORTUNE_ variables, the place of the embedded AWS from AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import argparse
import os
import threading
from typing import Final

from local.clouds.aws.gateway import Gateway
from local.clouds.aws.triggers import run_events, run_queue, run_schedule
from local.processes.logs import log_to_stderr
from local.processes.wsgi import serve
from shared.settings import Settings

#: the queue between EventBridge and the completion handler; it exists in the embedded cloud only
EVENTS_QUEUE: Final = "opportune-local-events"


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--schedule", default="functions.aws.schedule.handler", help="dotted name of a handler")
    parser.add_argument("--retrain", default="functions.aws.retrain.handler")
    parser.add_argument("--events", default="functions.aws.training_events.handler")
    parser.add_argument("--http", default="functions.aws.http.handler")
    parser.add_argument("--events-queue", default=EVENTS_QUEUE)
    options = parser.parse_args()
    log_to_stderr()
    settings = Settings.from_env(os.environ)

    stop = threading.Event()
    for name, target, arguments in (
        ("schedule", run_schedule, (options.schedule, settings.slot_seconds, stop)),
        ("retrain", run_queue, (options.retrain, settings.queue, stop)),
        ("events", run_events, (options.events, options.events_queue, stop)),
    ):
        # Daemons: a long poll must not hold up the end of the process.
        threading.Thread(target=target, args=arguments, name=name, daemon=True).start()
    try:
        serve(Gateway(options.http), options.http_port)
    finally:
        stop.set()


if __name__ == "__main__":
    main()
