"""The Azure Functions app: the host looks for this file beside host.json.

Two apps are deployed from it, each with an identity of its own: OPPORTUNE_FUNCTIONS names the functions of one of them,
separated by commas. Without it, as on a machine of one's own, an app has all four.
"""

from __future__ import annotations

import os

import azure.functions as func

from functions.azure import http
from functions.azure import retrain as queue
from functions.azure import schedule as timer
from functions.azure import training_events as eventgrid
from shared.logs import log_json

log_json(service="opportune", cloud="azure")

PARTS = {"schedule": timer, "retrain": queue, "training-events": eventgrid, "http": http}

app = func.FunctionApp()
for name in os.environ.get("OPPORTUNE_FUNCTIONS", ",".join(PARTS)).split(","):
    app.register_functions(PARTS[name.strip()].blueprint)
