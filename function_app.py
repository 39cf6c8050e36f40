"""The Azure Functions app: the host looks for this file beside host.json."""

from __future__ import annotations

import azure.functions as func

from functions.azure import eventgrid, http, queue, timer
from shared.logs import log_json

log_json(service="opportune", cloud="azure")

app = func.FunctionApp()
for part in (timer, queue, eventgrid, http):
    app.register_functions(part.blueprint)
