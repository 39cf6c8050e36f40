"""The InferenceClient of the real clouds: whatever the route table names, with the proof that each cloud asks for.

| an endpoint's address                        | is asked by                                                       |
|----------------------------------------------|-------------------------------------------------------------------|
| sagemaker:NAME                               | the SageMaker runtime's InvokeEndpoint, signed with our AWS identity |
| azureml:https://NAME.REGION.inference.…/score | its scoring address, with our Entra token                         |
| http(s)://…                                  | plain HTTP                                                        |

boto3 has time-outs per client, not per request, and a request has only what is left of its caller's deadline: so
InvokeEndpoint is signed by botocore and sent here. SDKs load at the first request that needs them.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import urllib3

from shared.adapters.aws.session import AwsSession, translated
from shared.adapters.azure.credential import MARGIN_S, workspace_credential
from shared.adapters.http import HttpInference, payload, pool, post
from shared.addresses import host_of
from shared.errors import UnavailableError
from shared.ports import InferenceClient
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

SAGEMAKER: Final = "sagemaker:"
AZURE_ML: Final = "azureml:"
#: what an identity's token for a managed online endpoint must be for
SCOPE: Final = "https://ml.azure.com/.default"
#: the one header of a caller that SageMaker hands on to the container
ATTRIBUTES: Final = "X-Amzn-SageMaker-Custom-Attributes"
#: both clouds say so when the container refused or failed
_CONTAINER_ERROR: Final = 424
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class CloudInference:
    """InferenceClient over all three kinds of address."""

    def __init__(self, settings: Settings, session: AwsSession, credential: TokenCredential) -> None:
        self._plain = HttpInference()
        self._sagemaker = functools.cache(lambda: SageMakerInference(session))
        self._azureml = functools.cache(lambda: AzureMLInference(workspace_credential(settings, credential)))

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """Hand the request to the client of that kind of address."""
        asked: InferenceClient = self._plain
        if url.startswith(SAGEMAKER):
            asked = self._sagemaker()
        elif url.startswith(AZURE_ML):
            asked = self._azureml()
        return asked.invoke(url, body, timeout_s, headers)


class SageMakerInference:
    """InferenceClient on SageMaker endpoints, by name."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session
        self._pool = pool()
        with translated("SageMaker runtime"):
            # The client knows the region and AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME; the requests are sent without it.
            meta = session.client("sagemaker-runtime").meta
            self._address, self._region = str(meta.endpoint_url).rstrip("/"), str(meta.region_name)

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """POST /endpoints/NAME/invocations.

        Raises:
            UnavailableError: anything but the container's own answer; a wrong identity or name is not the user's fault.
            InvalidInputError: the container's 4xx.
        """
        name = url.removeprefix(SAGEMAKER)
        what, target = f"SageMaker endpoint {name}", f"{self._address}/endpoints/{name}/invocations"
        raw = json.dumps(body).encode()
        known = {**_JSON, ATTRIBUTES: "; ".join(f"{key}={value}" for key, value in headers.items())}
        proven = self._session.sign("POST", target, raw, known, service="sagemaker", region=self._region)
        answer = post(self._pool, target, raw, timeout_s, proven)
        if answer.status == _CONTAINER_ERROR:
            told = _object(answer.data)
            status = told.get("OriginalStatusCode")
            if isinstance(status, int) and status >= 400:
                return payload(what, status, str(told.get("OriginalMessage", "")).encode())
        return _answered(what, answer)


class AzureMLInference:
    """InferenceClient on managed online endpoints, by scoring address."""

    def __init__(self, credential: TokenCredential) -> None:
        self._pool = pool()
        self._token = TimelyToken(credential, SCOPE)

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """POST the scoring address.

        Raises:
            UnavailableError: anything but the container's own answer; a wrong identity or name is not the user's fault.
            InvalidInputError: the container's 4xx.
        """
        target = url.removeprefix(AZURE_ML)
        what = f"Azure ML endpoint {host_of(target)}"
        give_up = time.monotonic() + timeout_s
        token = self._token.within(timeout_s)
        known = {**_JSON, **headers, "Authorization": f"Bearer {token}"}
        answer = post(self._pool, target, json.dumps(body).encode(), give_up - time.monotonic(), known)
        status = answer.headers.get("ms-azureml-model-error-statuscode", "").strip()
        if answer.status == _CONTAINER_ERROR and status.isdigit() and int(status) >= 400:
            return payload(what, int(status), answer.data)
        return _answered(what, answer)


class TimelyToken:
    """The credential's token for one scope, asked in a thread, so that no request waits beyond its own deadline."""

    def __init__(self, credential: TokenCredential, scope: str) -> None:
        self._credential, self._scope = credential, scope
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="entra")
        self._lock = threading.Lock()
        self._asked: concurrent.futures.Future[AccessToken] | None = None

    def within(self, timeout_s: float) -> str:
        """The token, if it comes in time; a late one is there for the next request.

        Raises:
            UnavailableError: it did not come in time, or nobody here may have one.
        """
        with self._lock:
            if self._asked is None or (self._asked.done() and not _good(self._asked)):
                self._asked = self._thread.submit(self._credential.get_token, self._scope)
            asked = self._asked
        try:
            return str(asked.result(max(timeout_s, 0.0)).token)
        except concurrent.futures.TimeoutError as exc:
            raise UnavailableError("Microsoft Entra", f"no token within {timeout_s:.3g} s; it is still asked") from exc


def _good(asked: concurrent.futures.Future[AccessToken]) -> bool:
    return asked.exception() is None and asked.result().expires_on - time.time() >= MARGIN_S


def _answered(what: str, answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    if answer.status >= 400:
        told = _object(answer.data)
        words = told.get("Message") or told.get("message") or answer.data[:200].decode(errors="replace")
        raise UnavailableError(what, f"HTTP {answer.status}: {words}")
    return payload(what, answer.status, answer.data)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        told = json.loads(raw)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
