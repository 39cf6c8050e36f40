"""What stands before moto: signatures, SageMaker's own model of its requests, and refusals that were asked for.

moto takes what nobody signed, what no field allows and names of any length; AWS does not.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

import botocore.session  # noqa: TID251 - the cloud itself checks with its vendor's model
from botocore.model import OperationNotFoundError  # noqa: TID251
from botocore.validate import ParamValidator  # noqa: TID251

from local.clouds.faults import PATH, Faults
from local.processes.wsgi import StartResponse, WsgiApp, status_line

SAGEMAKER: Final = "SageMaker"
#: where SageMaker pulls images from
_ECR: Final = re.compile(
    r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9][a-z0-9._/-]*(:[\w.-]+|@sha256:[0-9a-f]{64})"
)
_SCOPE: Final = re.compile(r"Credential=[^/,\s]+/\d{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request")
#: of moto itself
_MOTO: Final = "/moto-api"


class Front:
    """A WSGI application around moto's."""

    def __init__(self, app: WsgiApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == PATH:
            return self._control(environ, start_response)
        if path.startswith(_MOTO):
            return self._app(environ, start_response)
        if path.startswith("/endpoints/"):
            return _json(start_response, 404, "UnknownOperationException", "the SageMaker runtime is another address")
        scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", "") or unquote(environ.get("QUERY_STRING", "")))
        if scope is None and "X-Amz-Credential" not in environ.get("QUERY_STRING", ""):
            return _refusal(environ, start_response, 403, "MissingAuthenticationToken", "nobody signed this request")
        prefix, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if scope is not None and scope[1] == "s3":
            operation = _s3_operation(environ["REQUEST_METHOD"], path)
        if fault := self._faults.take(operation):
            return _refusal(environ, start_response, fault.status, fault.code, fault.message)
        if prefix == SAGEMAKER:
            raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(raw)
            if wrong := violations(operation, raw):
                return _json(start_response, 400, "ValidationException", wrong)
        return self._app(environ, start_response)

    def _control(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            try:
                self._faults.replace(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
            except ValueError as exc:
                return _json(start_response, 400, "ValidationException", str(exc))
        start_response(status_line(200), [("content-type", "application/json")])
        return [self._faults.told()]


def violations(operation: str, raw: bytes) -> str:
    """What SageMaker says against the request, in its words; "" when nothing."""
    try:
        request = json.loads(raw or b"{}")
        shape = _service().operation_model(operation).input_shape
    except ValueError:
        return "the request is not JSON"
    except OperationNotFoundError:
        return f"Unknown operation {operation}"
    if shape is None:
        return ""
    found = ParamValidator().validate(request, shape)
    if found.has_errors():
        return str(found.generate_report())
    wrong = [*_outside(request, shape, ""), *_semantics(operation, request)]
    if not wrong:
        return ""
    count = f"{len(wrong)} validation error{'s' * (len(wrong) > 1)} detected"
    return f"{count}: {'; '.join(wrong)}"


@functools.cache
def _service() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def _outside(value: Any, shape: Any, where: str) -> Iterator[str]:
    """The limits of the model that botocore leaves to the service: longest, greatest, pattern, enumeration."""
    limits = shape.metadata
    size = len(value) if isinstance(value, (str, list, dict)) else value
    shown = f"Value '{str(value)[:80]}' at '{where}' failed to satisfy constraint: Member must"
    if "max" in limits and not isinstance(value, bool) and size > limits["max"]:
        yield f"{shown} have {'length' if isinstance(value, str) else 'size'} less than or equal to {limits['max']}"
    if isinstance(value, str):
        if (pattern := limits.get("pattern")) and not _matches(pattern, value):
            yield f"{shown} satisfy regular expression pattern: {pattern}"
        if (allowed := limits.get("enum")) and value not in allowed:
            yield f"{shown} satisfy enum value set"
    elif shape.type_name == "structure":
        for name, member in value.items():
            yield from _outside(member, shape.members[name], _below(where, name))
    elif shape.type_name == "list":
        for number, member in enumerate(value):
            yield from _outside(member, shape.member, f"{where}.{number + 1}.member")
    elif shape.type_name == "map":
        for key, member in value.items():
            yield from _outside(key, shape.key, f"{where}.key")
            yield from _outside(member, shape.value, f"{where}.{key[:40]}.member")


def _below(where: str, name: str) -> str:
    return f"{where}.{name[0].lower()}{name[1:]}".lstrip(".")


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value, re.DOTALL) is not None
    except re.error:  # a class that Python does not know
        return True


def _semantics(operation: str, request: dict[str, Any]) -> Iterator[str]:
    """What the service checks and its model does not say."""
    if operation == "CreateModel":
        images = [request.get("PrimaryContainer") or {}, *request.get("Containers", [])]
        yield from (_not_ecr(one["Image"]) for one in images if not _ECR.fullmatch(one.get("Image", _ANY_IMAGE)))
    if operation == "CreateTrainingJob":
        image = request["AlgorithmSpecification"].get("TrainingImage", _ANY_IMAGE)
        if not _ECR.fullmatch(image):
            yield _not_ecr(image)
        stopping = request.get("StoppingCondition") or {}
        waiting, running = stopping.get("MaxWaitTimeInSeconds"), stopping.get("MaxRuntimeInSeconds", 86400)
        if request.get("EnableManagedSpotTraining"):
            if waiting is None or waiting < running:
                yield "MaxWaitTimeInSeconds above or equal to MaxRuntimeInSeconds is required for managed spot training"
        elif waiting is not None:
            yield "MaxWaitTimeInSeconds is for managed spot training only"


_ANY_IMAGE: Final = "000000000000.dkr.ecr.here.amazonaws.com/any:1"


def _not_ecr(image: str) -> str:
    return f'Using non-ECR image "{image}" without Vpc repository access mode is not supported.'


def _s3_operation(method: str, path: str) -> str:
    has_key = path.strip("/").count("/") > 0
    if method in ("GET", "HEAD"):
        return f"s3:{'GetObject' if has_key else 'ListBucket'}"
    return f"s3:{'DeleteObject' if method == 'DELETE' else 'PutObject'}" if has_key else "s3:CreateBucket"


def _refusal(
    environ: dict[str, Any], start_response: StartResponse, status: int, code: str, message: str
) -> Iterable[bytes]:
    if environ.get("HTTP_X_AMZ_TARGET"):
        return _json(start_response, status, code, message)
    start_response(status_line(status), [("content-type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]


def _json(start_response: StartResponse, status: int, code: str, message: str) -> Iterable[bytes]:
    body = json.dumps({"__type": code, "message": message}).encode()
    headers = [("content-type", "application/x-amz-json-1.1"), ("x-amzn-errortype", code)]
    start_response(status_line(status), headers)
    return [body]
