"""HTTP routes of the serving container (Flask): parse, one call, map errors. Every answer is JSON, but for /metrics.

| route | what |
|---|---|
| POST /predict | answer a question |
| POST /feedback | score and store a labelled question |
| POST /invocations (SageMaker), /score (Azure ML) | either: with answers it is feedback |
| GET /healthz, /ping (SageMaker) | 200 while a model is active and the process is not stopping; else 503 and why |
| GET /metrics | Prometheus |

A request may name the version that is to answer: `model_version` in its body, or X-Opportune-Version. A process that
has not loaded it answers 409.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

from flask import Flask, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed

from shared.contracts import new_trace_id
from shared.errors import InvalidInputError, OpportuneError
from shared.headers import requested_timeout_s
from training_containers.serve.batcher import QueueFullError
from training_containers.serve.bodies import Feedback, FieldError, Predict, labelled, parse
from training_containers.serve.service import Service, http_status

log = logging.getLogger(__name__)

_TRACE: Final = re.compile(r"\b[0-9a-f]{32}\b")
_MAX_TIMEOUT_S: Final = 60.0
_VERSION: Final = "X-Opportune-Version"
#: the header in which SageMaker hands on what a caller says, here "name=value; name=value"
_ATTRIBUTES: Final = "X-Amzn-SageMaker-Custom-Attributes"


def create_app(
    service: Service,
    *,
    cloud: str,
    timeout_s: float = 10.0,
    max_body_bytes: int = 65536,
    draining: Callable[[], bool] = lambda: False,
    waits_for: Callable[[], str] = lambda: "",
) -> Flask:
    """The app of one serving process; `waits_for` says why no model is active."""
    app = Flask("opportune-serve")
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    registry = service.registry

    def ids() -> dict[str, str]:
        return {"trace_id": _trace_id(), "request_id": uuid.uuid4().hex}

    @app.post("/predict")
    def predict() -> Response:
        known = ids()
        try:
            body, limit_s = parse(Predict, request.get_data()), _timeout_s(timeout_s)
        except InvalidInputError:
            service.metrics.request(None, 400, 0.0)
            raise
        answered = service.predict(body, limit_s, known, _header(_VERSION))
        return jsonify(
            answer=answered.answer,
            model_version=answered.model_version,
            cloud=cloud,
            request_id=known["request_id"],
            latency_s=round(answered.latency_s, 6),
        )

    @app.post("/feedback")
    def feedback() -> Response:
        body, limit_s = parse(Feedback, request.get_data()), _timeout_s(timeout_s)
        scored = service.feedback(body, limit_s, ids(), _header(_VERSION))
        return jsonify(**scored._asdict(), cloud=cloud)

    @app.post("/invocations")
    @app.post("/score")
    def either() -> Response:
        """Both clouds hand one route of a container to the outside."""
        return feedback() if labelled(request.get_data()) else predict()

    @app.get("/healthz")
    @app.get("/ping")
    def health() -> tuple[Response, int]:
        version = registry.active
        status = "stopping" if draining() else "ok" if version else "loading"
        facts = {"status": status, "model_version": version, "cloud": cloud}
        if status == "loading" and (reason := waits_for()):
            facts["reason"] = reason
        return jsonify(facts), 200 if status == "ok" else 503

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.page(), content_type=CONTENT_TYPE_LATEST)

    # --- errors

    @app.errorhandler(OpportuneError)
    def refused(error: OpportuneError) -> tuple[Response, int, dict[str, str]]:
        body: dict[str, Any] = {"error": str(error)}
        if isinstance(error, FieldError) and error.field:
            body["field"] = error.field
        status = http_status(error)
        headers = {"Retry-After": "1"} if status == 503 else {}
        if isinstance(error, QueueFullError):
            headers["Retry-After"] = str(error.retry_after_s)
        return jsonify(body), status, headers

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        if isinstance(error, InternalServerError):
            log.error("request failed", exc_info=error.original_exception, extra={"action": request.path})
        text = f"no route {request.path}" if error.code == 404 else error.description or error.name
        if error.code == 413:
            text = f"the body is over the limit of {max_body_bytes} bytes"
        response = jsonify(error=text)
        response.status_code = error.code or 500
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response

    return app


def _trace_id() -> str:
    """The caller's trace id (X-Opportune-Trace, or W3C traceparent), or a new one."""
    given = _header("X-Opportune-Trace") or _header("traceparent") or ""
    found = _TRACE.search(given)
    return found.group() if found else new_trace_id()


def _timeout_s(default_s: float) -> float:
    """Seconds the caller waits, at most a minute."""
    given = requested_timeout_s(_header)
    return default_s if given is None else min(given, _MAX_TIMEOUT_S)


def _header(name: str) -> str | None:
    """A header of ours, as it came or among SageMaker's custom attributes."""
    given = request.headers.get(name)
    if given is not None:
        return given.strip()
    pairs = (pair.partition("=") for pair in request.headers.get(_ATTRIBUTES, "").split(";"))
    return next((value.strip() for key, _, value in pairs if key.strip().lower() == name.lower()), None)
