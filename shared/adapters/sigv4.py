"""AWS requests signed with this process's identity (Signature Version 4), sent by another client than botocore's.

botocore fixes its time-outs when a client is made; a request with its own deadline, or through a library of its own
(Prometheus), is signed here. A signature here also costs a tenth of botocore's, and the five to ten of a tick count.
A function of AWS finds its identity in the environment; anywhere else botocore is imported to look for one.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from shared.adapters.aws import session
from shared.errors import UnavailableError

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: proxies and clients change these on the way
_UNSIGNED: Final = frozenset({"connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"})


class _Identity(NamedTuple):
    key_id: str
    secret: str
    token: str


def region_of(region: str = "", service: str = "") -> str:
    """`region`, else the environment's, else that of the AWS configuration here.

    Raises:
        UnavailableError: nobody says which.
    """
    found = region or os.environ.get("AWS_REGION", "") or os.environ.get("AWS_DEFAULT_REGION", "")
    found = found or str(session().get_config_variable("region") or "")
    if not found:
        raise UnavailableError(f"AWS {service}", "the region is unknown; set AWS_REGION")
    return found


def signed(
    method: str, url: str, body: bytes, headers: Mapping[str, str], *, service: str, region: str = ""
) -> dict[str, str]:
    """`headers` with the proof of who asks. The query of `url` must be percent-encoded, spaces as %20.

    Raises:
        UnavailableError: no credentials or no region can be found here, with what to do.
    """
    region = region_of(region, service)
    identity = _identity(service)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    proven = {**headers, "X-Amz-Date": stamp} | ({"X-Amz-Security-Token": identity.token} if identity.token else {})
    parts = urlsplit(url)
    named = {name.lower(): " ".join(value.split()) for name, value in proven.items() if name.lower() not in _UNSIGNED}
    named["host"] = _host(url)
    names = sorted(named)
    lines = [method, quote(parts.path or "/", safe="/-_.~"), "&".join(sorted(parts.query.split("&")))]
    lines += [f"{name}:{named[name]}" for name in names]
    lines += ["", ";".join(names), hashlib.sha256(body).hexdigest()]
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = _key(identity.secret, stamp[:8], region, service)
    proof = hmac.new(key, f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), hashlib.sha256).hexdigest()
    who = f"Credential={identity.key_id}/{scope}, SignedHeaders={';'.join(names)}, Signature={proof}"
    return {**proven, "Authorization": f"{_ALGORITHM} {who}"}


def _host(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


@functools.lru_cache(maxsize=8)
def _key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key of one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _identity(service: str) -> _Identity:
    env = os.environ
    federated = "AWS_ROLE_ARN" in env and "IDENTITY_ENDPOINT" in env
    if not federated and env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
        return _Identity(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env.get("AWS_SESSION_TOKEN", ""))
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = session().get_credentials()
        if found is None:
            raise UnavailableError(f"AWS {service}", "no credentials here; give the function a role, or log in to AWS")
        frozen = found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as exc:
        raise UnavailableError(f"AWS {service}", str(exc)) from exc
    return _Identity(frozen.access_key, frozen.secret_key, frozen.token or "")
