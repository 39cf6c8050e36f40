"""The HTTP function: one Flask app, mounted by serverless-wsgi on Lambda and by the WSGI middleware on Azure.

| route                | answers                                                                   |
|----------------------|---------------------------------------------------------------------------|
| POST /predict        | the endpoint's answer, with cloud, model_version, trace_id                |
| POST /feedback       | what the endpoint says of the label                                       |
| GET /healthz         | ok, and which routes this instance knows                                  |
| GET /routes          | the route table                                                           |
| GET /decisions       | the last ?limit= slots, or from ?since= (POSIX seconds or ISO 8601) on    |
| GET /decisions/<id>  | one decision                                                              |
| GET /jobs            | what this cloud trained in 30 days, or from ?since= on, and trains        |
| GET /metrics         | the control plane's metrics for Prometheus                                |

The last five are records: they want `Authorization: Bearer` with the operator's token. Without a token set they are not
there, unless the settings open them to everybody.

Every answer but /metrics is JSON; an error is {"error": words, "trace_id": id}, with "field" when one is to blame.
"""

from __future__ import annotations

import datetime as dt
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from functions.routing.inference import Inference
from functions.web.exposition import CONTENT_TYPE
from shared.contracts import LONGEST_ID, job_id_for
from shared.errors import BodyTooLargeError, InvalidInputError, NotFoundError, OpportuneError
from shared.headers import requested_timeout_s
from shared.ports import Clock
from shared.settings import Settings
from shared.state import State

log = logging.getLogger("opportune.functions.web")

_TRACEPARENT: Final = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_RETRY_AFTER_S: Final = 1
#: where msgspec names the culprit
_FIELD: Final = re.compile(r"required field `(\w+)`|`\$\.(\w+)")
_MOST_DECISIONS: Final = 1000
_JOBS_SHOWN_S: Final = 30 * 86_400.0
#: the view functions of what only the operator reads
_RECORDS: Final = frozenset({"routes", "decisions", "decision", "jobs", "metrics"})


def create_app(
    settings: Settings,
    state: State,
    inference: Inference,
    control_metrics: Callable[[float], str],
    clock: Clock = time.time,
) -> Flask:
    """The app over its dependencies; `control_metrics` makes the page of a moment."""
    app = Flask("opportune")
    # Read at most one byte beyond the limit; a larger body is refused unread.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.strict_slashes = False

    @app.before_request
    def begin() -> None:
        match = _TRACEPARENT.match(request.headers.get("traceparent", ""))
        g.trace_id = match.group(1) if match and set(match.group(1)) != {"0"} else secrets.token_hex(16)

    @app.before_request
    def guard() -> Response | None:
        return _refusal(settings) if request.endpoint in _RECORDS else None

    @app.post("/predict")
    def predict() -> Response:
        return _json(inference.predict(_body(), _deadline_s(settings), g.trace_id))

    @app.post("/feedback")
    def feedback() -> Response:
        return _json(inference.feedback(_body(), _deadline_s(settings), g.trace_id))

    @app.get("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok", "service": settings.service, "cloud": settings.cloud})

    @app.get("/routes")
    def routes() -> Response:
        return _json(inference.routes.table())

    @app.get("/decisions")
    def decisions() -> Response:
        limit = _whole_number("limit", 100, _MOST_DECISIONS)
        asked = request.args.get("since")
        since_s = clock() - limit * settings.slot_seconds if asked is None else _time_s(asked)
        first = f"decision-{job_id_for(settings.service, since_s)}"
        found = [d for d in state.decisions(first, limit=limit) if d.service == settings.service]
        return _json({"decisions": found})

    @app.get("/decisions/<decision_id>")
    def decision(decision_id: str) -> Response:
        found = state.decision(decision_id) if len(decision_id) <= LONGEST_ID else None
        if found is None:
            raise NotFoundError(f"no decision {decision_id[:LONGEST_ID]!r}; GET /decisions lists them")
        return _json(found)

    @app.get("/jobs")
    def jobs() -> Response:
        asked = request.args.get("since")
        since_s = clock() - _JOBS_SHOWN_S if asked is None else _time_s(asked)
        return _json({"jobs": state.jobs(settings.service, since=job_id_for(settings.service, since_s)).records})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(control_metrics(clock()), content_type=CONTENT_TYPE)

    _handle_errors(app, settings)
    return app


def _handle_errors(app: Flask, settings: Settings) -> None:
    """Every error becomes JSON with a status that tells the caller whether to try again."""

    @app.errorhandler(InvalidInputError)
    def invalid(error: InvalidInputError) -> Response:
        too_large = isinstance(error, BodyTooLargeError)
        return _error(error, HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST)

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(error: RequestEntityTooLarge) -> Response:
        size = request.content_length or 0
        return _error(BodyTooLargeError(size, settings.max_body_bytes), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    @app.errorhandler(NotFoundError)
    def not_found(error: NotFoundError) -> Response:
        return _error(error, HTTPStatus.NOT_FOUND)

    @app.errorhandler(OpportuneError)  # whatever a cloud did: not the caller's fault
    def unavailable(error: Exception) -> Response:
        response = _error(error, HTTPStatus.SERVICE_UNAVAILABLE)
        response.headers["Retry-After"] = str(_RETRY_AFTER_S)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        words = f"{request.method} {request.path}: {status.phrase.lower()}"
        response = _error(words, status)
        if status is HTTPStatus.METHOD_NOT_ALLOWED and getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @app.errorhandler(500)
    def bug(error: Exception) -> Response:
        # Flask logged the exception with its traceback; the caller gets an id to find it by.
        words = "internal error; the trace id finds it in the logs"
        return _error(words, HTTPStatus.INTERNAL_SERVER_ERROR)


def _json(payload: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(payload), status=status, mimetype="application/json")


def _error(words: object, status: HTTPStatus) -> Response:
    trace_id = g.get("trace_id", "")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request failed", extra={"action": request.path, "trace_id": trace_id, "reason": str(words)})
    body = {"error": str(words), "trace_id": trace_id}
    if match := _FIELD.search(str(words)):
        body["field"] = match.group(1) or match.group(2)
    return _json(body, status)


def _refusal(settings: Settings) -> Response | None:
    """Why this caller may not read the records; None when it may."""
    if not settings.operator_token:
        if settings.open_records:
            return None
        return _error(
            "records are not shown here; the deployment has no OPPORTUNE_OPERATOR_TOKEN", HTTPStatus.NOT_FOUND
        )
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), settings.operator_token.encode()):
        return None
    response = _error(
        "records want the header Authorization: Bearer with the operator's token", HTTPStatus.UNAUTHORIZED
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _body() -> dict[str, Any]:
    raw = request.get_data(cache=False)
    try:
        body = msgspec.json.decode(raw)
    except RecursionError as exc:
        raise InvalidInputError("the body is not JSON of ours: nested too deeply") from exc
    except ValueError as exc:  # msgspec's and Unicode's errors, and numbers of more digits than Python reads
        raise InvalidInputError(f"the body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise InvalidInputError("the body must be a JSON object")
    return body


def _deadline_s(settings: Settings) -> float:
    given = requested_timeout_s(request.headers.get)
    return settings.request_timeout_seconds if given is None else min(given, settings.request_timeout_seconds)


def _whole_number(name: str, default: int, most: int) -> int:
    raw = request.args.get(name)
    if raw is None:
        return default
    if not raw.isascii() or not raw.isdigit() or not 1 <= int(raw) <= most:
        raise InvalidInputError(f"{name} is {raw!r}; allowed: a whole number from 1 to {most}")
    return int(raw)


def _time_s(raw: str) -> float:
    try:
        moment = float(raw)
    except ValueError:
        try:
            parsed = dt.datetime.fromisoformat(raw)
        except ValueError as exc:
            raise InvalidInputError(f"since is {raw!r}; allowed: POSIX seconds or ISO 8601 time") from exc
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)).timestamp()
    if not 0 <= moment < 1e11:
        raise InvalidInputError(f"since is {raw!r}; allowed: POSIX seconds or ISO 8601 time")
    return moment
