"""The embedded Azure ML: the REST interface of one workspace, whose jobs and deployments run on this machine.

    python -m local.clouds.azure.ml --port P

OPPORTUNE_AZUREML_TOKEN (the bearer token to ask for), OPPORTUNE_AZURE_STORAGE_CONNECTION, OPPORTUNE_LOCAL_WORK (also of
local.clouds.azure.scoring, which answers for the endpoints), OPPORTUNE_LOCAL_SCORING_URL (where that listens) and
OPPORTUNE_LOCAL_EVENTGRID_URL come from the environment.
"""

from __future__ import annotations

import argparse
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, jsonify, request

from local.clouds.azure.endpoints import BusyError, Endpoints
from local.clouds.azure.jobs import BadJobError, JobRunner
from local.clouds.azure.schema import BODIES, EndpointPatch, checked
from local.clouds.azure.storage import Datastore
from local.clouds.faults import PATH, Faults
from local.processes.logs import log_to_stderr
from local.processes.wsgi import serve

WORKSPACE: Final = (
    "/subscriptions/<subscription>/resourceGroups/<group>"
    "/providers/Microsoft.MachineLearningServices/workspaces/<workspace>"
)
_NAME: Final = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9\-_.]{0,254}$")
#: of endpoints and deployments, 3 to 32 characters
_SHORT: Final = re.compile(r"^[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]$")
Reply = tuple[Response, int]


def create_app(jobs: JobRunner, endpoints: Endpoints, token: str, faults: Faults) -> Flask:
    """The workspace's interface. Errors have Azure's form: {"error": {"code", "message"}}."""
    app = Flask(__name__)

    @app.before_request
    def authorise() -> Reply | None:
        if request.path in ("/healthz", PATH):
            return None
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {token}"):
            return error(401, "InvalidAuthenticationToken", "the bearer token is missing or wrong")
        if not request.args.get("api-version"):
            return error(400, "MissingApiVersionParameter", "the query parameter api-version is required")
        for name, value in (request.view_args or {}).items():
            allowed = _SHORT if name in ("endpoint", "deployment") else _NAME
            if not allowed.match(value):
                return error(400, "ValidationError", f"{value!r} is not a valid name")
        if fault := faults.take(f"{request.method} {collection()}"):
            return error(fault.status, fault.code, fault.message)
        return None

    @app.get(PATH)
    def told() -> Response:
        return Response(faults.told(), mimetype="application/json")

    @app.put(PATH)
    def refuse() -> Response | Reply:
        try:
            faults.replace(request.get_data())
        except ValueError as exc:
            return error(400, "ValidationError", str(exc))
        return told()

    @app.get("/healthz")
    def healthz() -> Reply:
        return jsonify(status="ok"), 200

    @app.put(f"{WORKSPACE}/jobs/<name>")
    def put_job(name: str, **workspace: str) -> Reply:
        try:
            job, new = jobs.create(name, workspace_id(workspace), checked(BODIES["jobs"], body()))
        except BadJobError as exc:
            return error(400, "UserError", str(exc))
        except ValueError as exc:
            return error(400, "ValidationError", str(exc))
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

    def put(path: str, workspace: dict[str, str], keep: Callable[[str, dict[str, Any]], None]) -> Reply:
        found = endpoints.get(path)
        try:
            asked = checked(BODIES[collection()], body())
            keep(path, {**asked, "id": f"{workspace_id(workspace)}/{path}", "name": path.rpartition("/")[2]})
        except BusyError as exc:
            return error(409, "Conflict", str(exc))
        except ValueError as exc:
            return error(400, "ValidationError", str(exc))
        return jsonify(endpoints.get(path)), 200 if found else 201

    def get(path: str) -> Reply:
        found = endpoints.get(path)
        return (jsonify(found), 200) if found else missing(path)

    def delete(path: str) -> Reply:
        try:
            return jsonify({}), 202 if endpoints.delete(path) else 204
        except BusyError as exc:
            return error(409, "Conflict", str(exc))
        except ValueError as exc:
            return error(400, "ValidationError", str(exc))

    for kind in ("models", "environments"):

        def put_asset(name: str, version: str, kind: str = kind, **workspace: str) -> Reply:
            return put(f"{kind}/{name}/versions/{version}", workspace, endpoints.put_asset)

        def get_asset(name: str, version: str, kind: str = kind, **workspace: str) -> Reply:
            return get(f"{kind}/{name}/versions/{version}")

        rule = f"{WORKSPACE}/{kind}/<name>/versions/<version>"
        app.add_url_rule(rule, f"put_{kind}", put_asset, methods=["PUT"])
        app.add_url_rule(rule, f"get_{kind}", get_asset, methods=["GET"])

    @app.put(f"{WORKSPACE}/onlineEndpoints/<endpoint>")
    def put_endpoint(endpoint: str, **workspace: str) -> Reply:
        return put(f"onlineEndpoints/{endpoint}", workspace, endpoints.put_endpoint)

    @app.patch(f"{WORKSPACE}/onlineEndpoints/<endpoint>")
    def patch_endpoint(endpoint: str, **workspace: str) -> Reply:
        path = f"onlineEndpoints/{endpoint}"
        if endpoints.get(path) is None:
            return missing(f"endpoint {endpoint}")
        try:
            endpoints.patch_endpoint(path, checked(EndpointPatch, body()))
        except BusyError as exc:
            return error(409, "Conflict", str(exc))
        except ValueError as exc:
            return error(400, "ValidationError", str(exc))
        return get(path)

    @app.get(f"{WORKSPACE}/onlineEndpoints/<endpoint>")
    def get_endpoint(endpoint: str, **workspace: str) -> Reply:
        return get(f"onlineEndpoints/{endpoint}")

    @app.delete(f"{WORKSPACE}/onlineEndpoints/<endpoint>")
    def delete_endpoint(endpoint: str, **workspace: str) -> Reply:
        return delete(f"onlineEndpoints/{endpoint}")

    @app.put(f"{WORKSPACE}/onlineEndpoints/<endpoint>/deployments/<deployment>")
    def put_deployment(endpoint: str, deployment: str, **workspace: str) -> Reply:
        if endpoints.get(f"onlineEndpoints/{endpoint}") is None:
            return missing(f"endpoint {endpoint}")
        return put(f"onlineEndpoints/{endpoint}/deployments/{deployment}", workspace, endpoints.put_deployment)

    @app.get(f"{WORKSPACE}/onlineEndpoints/<endpoint>/deployments/<deployment>")
    def get_deployment(endpoint: str, deployment: str, **workspace: str) -> Reply:
        return get(f"onlineEndpoints/{endpoint}/deployments/{deployment}")

    @app.delete(f"{WORKSPACE}/onlineEndpoints/<endpoint>/deployments/<deployment>")
    def delete_deployment(endpoint: str, deployment: str, **workspace: str) -> Reply:
        return delete(f"onlineEndpoints/{endpoint}/deployments/{deployment}")

    @app.post(f"{WORKSPACE}/onlineEndpoints/<endpoint>/deployments/<deployment>/getLogs")
    def get_logs(endpoint: str, deployment: str, **workspace: str) -> Reply:
        path = f"onlineEndpoints/{endpoint}/deployments/{deployment}"
        if endpoints.get(path) is None:
            return missing(path)
        lines = endpoints.logs(path).splitlines()
        return jsonify(content="\n".join(lines[-int(body().get("tail") or 100) :])), 200

    @app.get(f"{WORKSPACE}/onlineEndpoints/<endpoint>/deployments")
    def list_deployments(endpoint: str, **workspace: str) -> Reply:
        if endpoints.get(f"onlineEndpoints/{endpoint}") is None:
            return missing(f"endpoint {endpoint}")
        return jsonify(value=endpoints.below(f"onlineEndpoints/{endpoint}/deployments")), 200

    @app.errorhandler(404)
    def no_route(_: Exception) -> Reply:
        return error(404, "NotFound", f"no such resource: {request.path}")

    return app


def collection() -> str:
    """The last collection that the request's path names: jobs, models, environments, onlineEndpoints, deployments."""
    return next((part for part in reversed(request.path.split("/")) if part in BODIES), "")


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
    datastore, faults = Datastore.from_env(), Faults()
    runner = JobRunner(work / "jobs", datastore, env.get("OPPORTUNE_LOCAL_EVENTGRID_URL", ""), faults)
    endpoints = Endpoints(work, datastore, env.get("OPPORTUNE_LOCAL_SCORING_URL", f"http://127.0.0.1:{port}"))
    try:
        serve(create_app(runner, endpoints, env["OPPORTUNE_AZUREML_TOKEN"], faults), port)
    finally:
        runner.kill()
        endpoints.kill()
        # A job's thread may be waiting for a container or a network answer; the cloud goes away without it.
        os._exit(0)


if __name__ == "__main__":
    main()
