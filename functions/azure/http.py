"""Azure Functions: HTTP -> the Flask app."""

from __future__ import annotations

import functools

import azure.functions as func

from functions.azure.compat import Middleware
from functions.bootstrap import web_app

blueprint = func.Blueprint()


@functools.cache
def middleware() -> Middleware:
    """Built at the first request."""
    return Middleware(web_app("azure").wsgi_app)


@blueprint.function_name("http")
@blueprint.route(
    route="{*path}",
    methods=list(func.HttpMethod),  # what there is no route for is the app's to say
    auth_level=func.AuthLevel.ANONYMOUS,
)
def http(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    """One request."""
    return middleware().handle(req, context)
