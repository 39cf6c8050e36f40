"""The online endpoint in the embedded Azure ML, as docs/deploy-azure.md makes it in a real workspace."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any, Final

from shared.errors import UnavailableError
from shared.settings import Settings

API_VERSION: Final = "2024-10-01"
READY_S: Final = 120.0
#: a proxy for the outside world does not lead back to this machine
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def make_endpoint(settings: Settings) -> None:
    """The online endpoint with one deployment, `base`, of the model that came with the image; once the process is up.

    Raises:
        UnavailableError: the workspace does not answer, or does not deploy.
    """
    endpoint = f"onlineEndpoints/{settings.azureml_endpoint}"
    described: dict[str, Any] = {"location": "local", "properties": {"authMode": "AADToken"}}
    _call(settings, "PUT", endpoint, described)
    deployment = {
        "location": "local",
        "tags": {"opportune-version": "base"},
        "properties": {"endpointComputeType": "Managed", "instanceType": settings.azureml_serve_instance_type},
    }
    found = _call(settings, "PUT", f"{endpoint}/deployments/base", deployment)
    deadline = time.monotonic() + READY_S
    while found["properties"]["provisioningState"] != "Succeeded":
        if time.monotonic() > deadline:
            raise UnavailableError("Azure ML", "did not deploy the base model")
        time.sleep(0.05)
        found = _call(settings, "GET", f"{endpoint}/deployments/base")
    described["properties"]["traffic"] = {"base": 100}
    _call(settings, "PUT", endpoint, described)


def _call(settings: Settings, method: str, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    url = (
        f"{settings.azureml_url}/subscriptions/{settings.azureml_subscription}"
        f"/resourceGroups/{settings.azureml_resource_group}/providers/Microsoft.MachineLearningServices"
        f"/workspaces/{settings.azureml_workspace}/{resource}?api-version={API_VERSION}"
    )
    headers = {"Authorization": f"Bearer {settings.azureml_token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers, method=method)
    try:
        with _DIRECT.open(request, timeout=20) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except OSError as exc:
        raise UnavailableError("Azure ML", f"{method} {resource}: {exc}") from exc
