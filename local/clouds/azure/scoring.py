"""The embedded Azure ML inference route: /ENDPOINT/score, the only way to a deployment's containers.

    python -m local.clouds.azure.scoring --port P

In Azure the endpoint's name is part of the host, here of the path. OPPORTUNE_LOCAL_WORK is the folder in which the
embedded Azure ML tells who answers, OPPORTUNE_AZUREML_TOKEN the token that a caller has to show.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from local.processes.managed_route import Answer, ManagedRoute, RefusedError, Request, by_weight
from local.processes.routing_table import RoutingTable, Target

ROUTES: Final = "routes.json"
#: the service's own limit of a request
MAX_BODY: Final = 10 * 1024 * 1024
_PATH: Final = re.compile(r"/([a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9])/score")
#: what the route keeps for itself
_OWN: Final = frozenset(
    {"authorization", "host", "connection", "content-length", "transfer-encoding", "azureml-model-deployment"}
)


class ScoringRules:
    """The scoring address of managed online endpoints."""

    max_body = MAX_BODY

    def __init__(self, table: RoutingTable, token: str) -> None:
        self._table = table
        self._token = token

    def admit(self, request: Request) -> tuple[str, Target]:
        """As the endpoint checks them: a token, an address, a deployment that takes traffic."""
        match = _PATH.fullmatch(request.path.partition("?")[0])
        targets = self._table.read().get(match[1]) if match else None
        if match is None or targets is None:
            raise RefusedError(_said(404, "no such endpoint or route"))
        if request.method != "POST":
            raise RefusedError(_said(405, "POST only"))
        proof = request.headers.get("authorization", "")
        if not hmac.compare_digest(proof.encode(), f"Bearer {self._token}".encode()):
            raise RefusedError(_said(401, "the bearer token is missing or wrong"))
        wanted = request.headers.get("azureml-model-deployment")
        chosen = by_weight(targets) if wanted is None else next((t for t in targets if t.name == wanted), None)
        if chosen is None:
            raise RefusedError(_said(404, f"no deployment {wanted or ''} takes traffic"))
        return match[1], chosen

    def passed_on(self, request: Request) -> Mapping[str, str]:
        """All but the proof, which is for the endpoint."""
        return {name: value for name, value in request.headers.items() if name not in _OWN}

    def answered(self, target: Target, answer: Answer) -> Answer:
        """What a container refuses is a failed dependency, with its own status in a header."""
        about = {"azureml-model-deployment": target.name, "x-ms-request-id": str(uuid.uuid4())}
        given = {name: value for name, value in answer.headers if name not in ("content-length", "connection")}
        if answer.status < 400:
            return Answer(answer.status, tuple({**given, **about}.items()), answer.body)
        about |= {
            "ms-azureml-model-error-statuscode": str(answer.status),
            "ms-azureml-model-error-reason": "model_error",
        }
        return Answer(424, tuple({**given, **about}.items()), answer.body)

    def failed(self, target: Target, timed_out: bool) -> Answer:
        """No answer."""
        if timed_out:
            return _said(408, f"upstream request timeout: no answer within {target.timeout_s:g} s")
        return _said(503, f"no healthy instance of deployment {target.name}")

    def too_large(self) -> Answer:
        """More than the endpoint takes."""
        return _said(413, f"the request is larger than {MAX_BODY} bytes")

    def too_many(self, target: Target) -> Answer:
        """Twice what its containers take at a time is the most that may wait."""
        return _said(429, f"too many pending requests of deployment {target.name}")


def _said(status: int, words: str) -> Answer:
    return Answer(status, (("content-type", "text/plain"), ("x-ms-request-id", str(uuid.uuid4()))), words.encode())


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    table = RoutingTable(Path(os.environ["OPPORTUNE_LOCAL_WORK"]) / ROUTES)
    asyncio.run(ManagedRoute(ScoringRules(table, os.environ["OPPORTUNE_AZUREML_TOKEN"])).run(port))


if __name__ == "__main__":
    main()
