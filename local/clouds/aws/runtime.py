"""The embedded SageMaker runtime: InvokeEndpoint, the only way to a container.

    python -m local.clouds.aws.runtime --port P

OPPORTUNE_LOCAL_WORK is the folder in which the embedded SageMaker tells who answers.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from local.clouds.aws.sdk import ACCOUNT, REGION
from local.clouds.aws.training import work_dir
from local.processes.managed_route import Answer, ManagedRoute, RefusedError, Request, by_weight
from local.processes.routing_table import RoutingTable, Target

ROUTES: Final = "routes.json"
#: the service's own limits (botocore's model of InvokeEndpoint says the same)
MAX_BODY: Final = 6 * 1024 * 1024
MAX_ATTRIBUTES: Final = 1024
CLOCK_SKEW_S: Final = 300.0
_PATH: Final = re.compile(r"/endpoints/([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})/invocations")
_SIGNED: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/,\s]+/(\d{8})/[a-z0-9-]+/sagemaker/aws4_request,\s*"
    r"SignedHeaders=([a-z0-9;-]+),\s*Signature=[0-9a-f]{64}"
)
_ATTRIBUTES: Final = "x-amzn-sagemaker-custom-attributes"
_PASSED_ON: Final = ("content-type", "accept", _ATTRIBUTES)


class SageMakerRules:
    """InvokeEndpoint: signed requests to a variant of an endpoint."""

    max_body = MAX_BODY

    def __init__(self, table: RoutingTable) -> None:
        self._table = table

    def admit(self, request: Request) -> tuple[str, Target]:
        """As the runtime checks them: who asks, what it asks for, is it there."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            raise RefusedError(error(404, "UnknownOperationException", f"no operation at {request.path}"))
        if request.method != "POST":
            raise RefusedError(error(405, "MethodNotAllowedException", "POST only"))
        _check_signature(request.headers)
        attributes = request.headers.get(_ATTRIBUTES, "")
        if len(attributes) > MAX_ATTRIBUTES or not all(" " <= letter <= "~" for letter in attributes):
            raise RefusedError(_invalid("CustomAttributes", f"at most {MAX_ATTRIBUTES} visible US-ASCII characters"))
        targets = self._table.read().get(match[1])
        if targets is None:
            raise RefusedError(error(400, "ValidationError", f"Endpoint {match[1]} of account {ACCOUNT} not found."))
        wanted = request.headers.get("x-amzn-sagemaker-target-variant")
        chosen = by_weight(targets) if wanted is None else next((t for t in targets if t.name == wanted), None)
        if chosen is None:
            raise RefusedError(error(400, "ValidationError", f"Variant {wanted or ''} of {match[1]} takes no traffic"))
        return match[1], chosen

    def passed_on(self, request: Request) -> Mapping[str, str]:
        """SageMaker hands on nothing else of a caller."""
        return {name: request.headers[name] for name in _PASSED_ON if name in request.headers}

    def answered(self, target: Target, answer: Answer) -> Answer:
        """What a container refuses is the model's error."""
        if len(answer.body) > MAX_BODY:
            return _model_error(target, 500, "the response is larger than 6 MB")
        if answer.status >= 400:
            return _model_error(target, answer.status, answer.body.decode(errors="replace"))
        given = {name: value for name, value in answer.headers if name in ("content-type", _ATTRIBUTES)}
        headers = {**given, "x-amzn-invoked-production-variant": target.name, "x-amzn-requestid": str(uuid.uuid4())}
        return Answer(answer.status, tuple(headers.items()), answer.body)

    def failed(self, target: Target, timed_out: bool) -> Answer:
        """No answer."""
        if timed_out:
            return _model_error(target, 0, "Your invocation timed out while waiting for a response from container")
        return error(503, "ServiceUnavailable", f"no instance of variant {target.name} answers")

    def too_large(self) -> Answer:
        """More than the runtime takes."""
        return error(413, "ValidationError", f"Request size exceeds the maximum of {MAX_BODY} bytes")

    def too_many(self, target: Target) -> Answer:
        """SageMaker has no limit of its own here."""
        raise AssertionError("SageMaker's targets have no limit")


def _check_signature(headers: Mapping[str, str]) -> None:
    proof = headers.get("authorization")
    if not proof:
        raise RefusedError(error(403, "MissingAuthenticationTokenException", "Missing Authentication Token"))
    match = _SIGNED.fullmatch(proof)
    if match is None:
        raise RefusedError(error(403, "IncompleteSignatureException", "not a Signature Version 4 for sagemaker"))
    try:
        asked = dt.datetime.strptime(headers.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        raise RefusedError(error(403, "IncompleteSignatureException", "X-Amz-Date is missing or wrong")) from None
    fresh = abs((dt.datetime.now(dt.UTC) - asked).total_seconds()) <= CLOCK_SKEW_S
    signed = set(match[2].split(";"))
    if not fresh or match[1] != f"{asked:%Y%m%d}" or not {"host", "x-amz-date"} <= signed:
        raise RefusedError(error(403, "InvalidSignatureException", "Signature expired, or of another day"))
    if _ATTRIBUTES in headers and _ATTRIBUTES not in signed:
        raise RefusedError(error(403, "InvalidSignatureException", "a header of the service is not signed"))


def error(status: int, code: str, message: str, **more: Any) -> Answer:
    """An error as the runtime writes it."""
    body = json.dumps({"Code": code, "Message": message, **more}).encode()
    headers = (
        ("content-type", "application/json"),
        ("x-amzn-errortype", code),
        ("x-amzn-requestid", str(uuid.uuid4())),
    )
    return Answer(status, headers, body)


def _invalid(member: str, what: str) -> Answer:
    return error(400, "ValidationError", f"1 validation error detected: Value at '{member}' must be {what}")


def _model_error(target: Target, status: int, message: str) -> Answer:
    stream = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{target.name}"
    return error(
        424,
        "ModelError",
        f"Received {'server' if status >= 500 else 'client'} error ({status}) from {target.name} with message"
        f' "{message[:1000]}". See {stream}',
        OriginalStatusCode=status,
        OriginalMessage=message[:4096],
        LogStreamArn=stream,
    )


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    asyncio.run(ManagedRoute(SageMakerRules(RoutingTable(work_dir() / ROUTES))).run(port))


if __name__ == "__main__":
    main()
