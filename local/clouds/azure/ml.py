"""The embedded Azure ML: the REST interface of one workspace, whose jobs and deployments run on this machine.

    python -m local.clouds.azure.ml --port P

OPPORTUNE_AZUREML_TOKEN (the bearer token to ask for), OPPORTUNE_AZURE_STORAGE_CONNECTION, OPPORTUNE_LOCAL_WORK,
OPPORTUNE_LOCAL_SERVE_URL, OPPORTUNE_ADMIN_TOKEN and OPPORTUNE_LOCAL_EVENTGRID_URL come from the environment.
"""

from __future__ import annotations

import argparse
import hmac
import os
import re
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, jsonify, request

from local.clouds.azure.endpoints import Endpoints
from local.clouds.azure.jobs import BadJobError, JobRunner
from local.clouds.azure.storage import Datastore
from local.processes.logs import log_to_stderr
from local.processes.serving_admin import ServingAdmin
from local.processes.wsgi import serve
from shared.errors import OpportuneError

WORKSPACE: Final = (
    "/subscriptions/<subscription>/resourceGroups/<group>"
    "/providers/Microsoft.MachineLearningServices/workspaces/<workspace>"
)
_NAME: Final = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}$")
Reply = tuple[Response, int]


def create_app(jobs: JobRunner, endpoints: Endpoints, token: str) -> Flask:
    """The workspace's interface. Errors have Azure's form: {"error": {"code", "message"}}."""
    app = Flask(__name__)

    @app.before_request
    def authorise() -> Reply | None:
        if request.path == "/healthz":
            return None
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {token}"):
            return error(401, "InvalidAuthenticationToken", "the bearer token is missing or wrong")
        if not request.args.get("api-version"):
            return error(400, "MissingApiVersionParameter", "the query parameter api-version is required")
        for value in (request.view_args or {}).values():
            if not _NAME.match(value):
                return error(400, "ValidationError", f"{value!r} is not a valid name")
        return None

    @app.get("/healthz")
    def healthz() -> Reply:
        return jsonify(status="ok"), 200

    @app.put(f"{WORKSPACE}/jobs/<name>")
    def put_job(name: str, **workspace: str) -> Reply:
        try:
            job, new = jobs.create(name, workspace_id(workspace), body())
        except BadJobError as exc:
            return error(400, "UserError", str(exc))
        return jsonify(job.resource), 201 if new else 200

    @app.get(f"{WORKSPACE}/jobs/<name>")
    def get_job(name: str, **workspace: str) -> Reply:
        job = jobs.get(name)
        return (jsonify(job.resource), 200) if job else missing(f"job {name}")

    @app.post(f"{WORKSPACE}/jobs/<name>/cancel")
    def cancel_job(name: str, **workspace: str) -> Reply:
        job = jobs.get(name)
        if job is None:
            return missing(f"job {name}")
        jobs.cancel(job)
        return jsonify({}), 202

    def put(path: str, workspace: dict[str, str], keep: Any) -> Reply:
        found = endpoints.get(path)
        resource = {**body(), "id": f"{workspace_id(workspace)}/{path}", "name": path.rpartition("/")[2]}
        if not isinstance(resource.get("properties"), dict):
            return error(400, "ValidationError", "properties is required")
        try:
            keep(path, resource)
        except OpportuneError as exc:
            return error(409, "Conflict", str(exc))
        return jsonify(endpoints.get(path)), 200 if found else 201

    def get(path: str) -> Reply:
        found = endpoints.get(path)
        return (jsonify(found), 200) if found else missing(path)

    @app.put(f"{WORKSPACE}/models/<name>/versions/<version>")
    def put_model(name: str, version: str, **workspace: str) -> Reply:
        return put(f"models/{name}/versions/{version}", workspace, endpoints.put_model)

    @app.get(f"{WORKSPACE}/models/<name>/versions/<version>")
    def get_model(name: str, version: str, **workspace: str) -> Reply:
        return get(f"models/{name}/versions/{version}")

    @app.put(f"{WORKSPACE}/onlineEndpoints/<name>")
    def put_endpoint(name: str, **workspace: str) -> Reply:
        return put(f"onlineEndpoints/{name}", workspace, endpoints.put_endpoint)

    @app.patch(f"{WORKSPACE}/onlineEndpoints/<name>")
    def patch_endpoint(name: str, **workspace: str) -> Reply:
        found = endpoints.get(f"onlineEndpoints/{name}")
        if found is None:
            return missing(f"endpoint {name}")
        traffic = body().get("properties", {}).get("traffic", found["properties"]["traffic"])
        found["properties"]["traffic"] = traffic
        try:
            endpoints.put_endpoint(f"onlineEndpoints/{name}", found)
        except OpportuneError as exc:
            return error(409, "Conflict", str(exc))
        return jsonify(found), 200

    @app.get(f"{WORKSPACE}/onlineEndpoints/<name>")
    def get_endpoint(name: str, **workspace: str) -> Reply:
        return get(f"onlineEndpoints/{name}")

    @app.put(f"{WORKSPACE}/onlineEndpoints/<name>/deployments/<deployment>")
    def put_deployment(name: str, deployment: str, **workspace: str) -> Reply:
        if endpoints.get(f"onlineEndpoints/{name}") is None:
            return missing(f"endpoint {name}")
        return put(f"onlineEndpoints/{name}/deployments/{deployment}", workspace, endpoints.put_deployment)

    @app.get(f"{WORKSPACE}/onlineEndpoints/<name>/deployments/<deployment>")
    def get_deployment(name: str, deployment: str, **workspace: str) -> Reply:
        return get(f"onlineEndpoints/{name}/deployments/{deployment}")

    @app.get(f"{WORKSPACE}/onlineEndpoints/<name>/deployments")
    def list_deployments(name: str, **workspace: str) -> Reply:
        if endpoints.get(f"onlineEndpoints/{name}") is None:
            return missing(f"endpoint {name}")
        return jsonify(value=endpoints.deployments(f"onlineEndpoints/{name}")), 200

    @app.errorhandler(404)
    def no_route(_: Exception) -> Reply:
        return error(404, "NotFound", f"no such resource: {request.path}")

    return app


def body() -> dict[str, Any]:
    """The request's JSON object; anything else counts as empty, and lacks `properties`."""
    found = request.get_json(silent=True)
    return found if isinstance(found, dict) else {}


def workspace_id(parts: dict[str, str]) -> str:
    """The resource id that begins the ids of everything in the workspace."""
    return (
        WORKSPACE.replace("<subscription>", parts["subscription"])
        .replace("<group>", parts["group"])
        .replace("<workspace>", parts["workspace"])
    )


def error(status: int, code: str, message: str) -> Reply:
    """An error as Azure writes it."""
    return jsonify(error={"code": code, "message": message}), status


def missing(what: str) -> Reply:
    """404 for one resource."""
    return error(404, "NotFound", f"{what} was not found")


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    log_to_stderr()
    env = os.environ
    work = Path(env.get("OPPORTUNE_LOCAL_WORK", "build/local-azure")).resolve()
    datastore, admin = Datastore.from_env(), ServingAdmin.from_env()
    runner = JobRunner(work / "jobs", datastore, env.get("OPPORTUNE_LOCAL_EVENTGRID_URL", ""))
    endpoints = Endpoints(work, datastore, admin, admin.url if admin else f"http://127.0.0.1:{port}")
    try:
        serve(create_app(runner, endpoints, env["OPPORTUNE_AZUREML_TOKEN"]), port)
    finally:
        runner.kill()
        # A job's thread may be waiting for a container or a network answer; the cloud goes away without it.
        os._exit(0)


if __name__ == "__main__":
    main()
