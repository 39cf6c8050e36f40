"""The Azure Functions app: the host looks for this file beside host.json."""

from __future__ import annotations

import azure.functions as func

from functions.azure import http
from functions.azure import retrain as queue
from functions.azure import schedule as timer
from functions.azure import training_events as eventgrid
from shared.logs import log_json

log_json(service="opportune", cloud="azure")

app = func.FunctionApp()
for part in (timer, queue, eventgrid, http):
    app.register_functions(part.blueprint)
