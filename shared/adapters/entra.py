"""Tokens of Microsoft Entra for whoever runs this code, without a stored secret and without the SDK.

| where                     | how                                                                           |
|---------------------------|-------------------------------------------------------------------------------|
| Azure Functions           | managed identity, at IDENTITY_ENDPOINT                                        |
| Azure ML containers       | managed identity, at MSI_ENDPOINT                                             |
| AWS, federated            | AZURE_TENANT_ID and AZURE_CLIENT_ID: an AWS token exchanged for an Entra one  |
| Azure virtual machines    | managed identity, at the instance metadata service                            |
| a developer's machine     | whoever is signed in to the `az` command                                      |

azure-identity does all of this and more, at 15 MB of cryptography and 200 ms of every cold start.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import urllib3

from shared.adapters.http import pool
from shared.errors import UnavailableError

#: the audience that Entra expects in a token of another provider
EXCHANGE_AUDIENCE: Final = "api://AzureADTokenExchange"
_METADATA_SERVICE: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
#: a token that ends sooner is renewed
_MARGIN_S: Final = 300.0
_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=10.0)


class Token(NamedTuple):
    """A bearer token and when it ends, POSIX seconds."""

    token: str
    expires_on: float


class Entra:
    """Tokens per resource, kept until shortly before they end."""

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        aws_token: Callable[[str], str] | None = None,
        login_url: str = "https://login.microsoftonline.com",
    ) -> None:
        self._env = os.environ if env is None else env
        self._aws_token = aws_token or _aws_token
        self._login_url = login_url
        self._pool = pool()
        self._tokens: dict[str, Token] = {}
        self._lock = threading.Lock()

    def token(self, resource: str, timeout_s: float | None = None) -> str:
        """A bearer token for `resource` (https://storage.azure.com), within `timeout_s` if given.

        Raises:
            UnavailableError: nobody here may have one, with what to do; or it did not come in time.
        """
        held = self._tokens.get(resource)
        if held is not None and held.expires_on - time.time() >= _MARGIN_S:
            return held.token
        if timeout_s is not None:
            return self._in_time(resource, timeout_s)
        with self._lock:
            held = self._tokens.get(resource)
            if held is None or held.expires_on - time.time() < _MARGIN_S:
                held = self._tokens[resource] = self._fetch(resource)
            return held.token

    def _in_time(self, resource: str, timeout_s: float) -> str:
        """The token, if it comes in time; a late one is there for the next caller."""
        try:
            return self._fetcher.submit(self.token, resource).result(timeout_s)
        except concurrent.futures.TimeoutError as exc:
            raise UnavailableError("Microsoft Entra", f"no token within {timeout_s:.3g} s; it is still asked") from exc

    @functools.cached_property
    def _fetcher(self) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="entra")

    def _fetch(self, resource: str) -> Token:
        env = self._env
        client = env.get("AZURE_CLIENT_ID", "")
        if "IDENTITY_ENDPOINT" in env and "IDENTITY_HEADER" in env:
            fields = {"api-version": "2019-08-01", "resource": resource} | ({"client_id": client} if client else {})
            return self._get(env["IDENTITY_ENDPOINT"], fields, {"X-IDENTITY-HEADER": env["IDENTITY_HEADER"]})
        if "MSI_ENDPOINT" in env and "MSI_SECRET" in env:
            client = env.get("DEFAULT_IDENTITY_CLIENT_ID", client)
            fields = {"api-version": "2017-09-01", "resource": resource} | ({"clientid": client} if client else {})
            return self._get(env["MSI_ENDPOINT"], fields, {"secret": env["MSI_SECRET"]})
        if env.get("AZURE_TENANT_ID") and client:
            return self._exchange(resource, env["AZURE_TENANT_ID"], client)
        if shutil.which("az", path=env.get("PATH")):
            return self._from_az(resource)
        return self._get(_METADATA_SERVICE, {"api-version": "2018-02-01", "resource": resource}, {"Metadata": "true"})

    def _exchange(self, resource: str, tenant: str, client: str) -> Token:
        body = {
            "grant_type": "client_credentials",
            "client_id": client,
            "scope": f"{resource}/.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self._aws_token(EXCHANGE_AUDIENCE),
        }
        return self._ask(
            "POST",
            f"{self._login_url}/{tenant}/oauth2/v2.0/token",
            body=urlencode(body).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )

    def _from_az(self, resource: str) -> Token:
        command = ["az", "account", "get-access-token", "--resource", resource, "--output", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as exc:
            raise UnavailableError("Microsoft Entra", "`az` did not answer within 30 s; run `az login`") from exc
        if done.returncode:
            raise UnavailableError("Microsoft Entra", f"`az` has no token: {done.stderr.strip()[:300]}; run `az login`")
        return _parsed(json.loads(done.stdout), "accessToken")

    def _get(self, url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> Token:
        return self._ask("GET", f"{url}?{urlencode(fields)}", headers=dict(headers))

    def _ask(self, method: str, url: str, **request: Any) -> Token:
        try:
            answer = self._pool.request(method, url, timeout=_TIMEOUT, **request)
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError(
                "Microsoft Entra",
                "no identity answers here. In Azure give the function app a managed identity; elsewhere run `az login` "
                f"or set AZURE_TENANT_ID and AZURE_CLIENT_ID ({type(exc).__name__})",
            ) from exc
        try:
            told: dict[str, Any] = json.loads(answer.data)
        except ValueError:
            told = {}
        if answer.status != 200 or not isinstance(told, dict):
            # The description of an error holds no secret; the request would.
            why = str(told.get("error_description") or told.get("message") or f"HTTP {answer.status}")[:300]
            raise UnavailableError("Microsoft Entra", f"no token: {why}")
        return _parsed(told, "access_token")


def _parsed(told: Mapping[str, Any], name: str) -> Token:
    try:
        ends = float(told["expires_on"]) if "expires_on" in told else time.time() + float(told.get("expires_in", 600))
        return Token(str(told[name]), ends)
    except (KeyError, ValueError) as exc:
        raise UnavailableError("Microsoft Entra", f"an answer without {exc}") from exc


def _aws_token(audience: str) -> str:
    """This AWS identity as a signed token for `audience`, from AWS STS; its role needs sts:GetWebIdentityToken."""
    from shared.adapters.aws.session import AwsSession

    return AwsSession().identity_token(audience)
