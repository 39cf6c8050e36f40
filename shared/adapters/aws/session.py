"""The process's one way into AWS: boto3's clients and credentials, and its errors as this project's.

Nothing is loaded before the first call that needs AWS: a function that never asks for it does not pay for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from shared.errors import (
    CapacityError,
    ConflictError,
    NotFoundError,
    OpportuneError,
    RefusedError,
    UnavailableError,
)

_LOST: Final = frozenset({"ConditionalCheckFailedException", "PreconditionFailed"})
_MISSING: Final = frozenset(
    {
        "404",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NoSuchKey",
        "QueueDoesNotExist",
        "ResourceNotFound",
        "ResourceNotFoundException",
    }
)


#: refused for now, whatever the HTTP status says; the same request may succeed a moment later
_BUSY: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestExpired",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)


class AwsSession:
    """Made once per process and handed to every AWS adapter; safe to share between threads.

    Region, credentials and AWS_ENDPOINT_URL are found where the SDK finds them, and in AWS_REGION. In Azure the
    function app's managed identity takes AWS_ROLE_ARN on: `web_identity_token` returns its Entra token, which is
    exchanged at AWS STS, so no key of AWS is stored there.
    """

    def __init__(self, web_identity_token: Callable[[], str] | None = None) -> None:
        self._web_identity_token = web_identity_token
        self._lock = threading.RLock()
        self._made: Any = None
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """The boto3 client of a service, made at its first use."""
        found = self._clients.get(service)
        if found is None:
            with self._lock:  # boto3 makes clients in one thread at a time; what it made may be shared
                found = self._clients.get(service)
                if found is None:
                    found = self._clients[service] = self._session().client(service, config=_config())
        return found

    def sign(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], *, service: str, region: str = ""
    ) -> dict[str, str]:
        """`headers` with the proof of who asks, for a request that boto3 does not send. `region`: "" = the session's.

        Raises:
            UnavailableError: no credentials or no region can be found here, with what to do.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import NoCredentialsError, NoRegionError

        with translated(f"AWS {service}"):
            with self._lock:
                session = self._session()
                credentials = session.get_credentials()
            signed_for = region or session.region_name
            if not signed_for:
                raise NoRegionError()
            if credentials is None:
                raise NoCredentialsError()
            request = AWSRequest(method, url, headers=dict(headers), data=body)
            SigV4Auth(credentials.get_frozen_credentials(), service, signed_for).add_auth(request)
        return dict(request.headers.items())

    def identity_token(self, audience: str) -> str:
        """This AWS identity as a signed token for `audience`; its role needs sts:GetWebIdentityToken.

        Raises:
            UnavailableError: AWS STS refused or did not answer.
        """
        with translated("AWS STS GetWebIdentityToken"):
            answer = self.client("sts").get_web_identity_token(
                Audience=[audience], SigningAlgorithm="RS256", DurationSeconds=300
            )
        return str(answer["WebIdentityToken"])

    def _session(self) -> Any:
        """The boto3 session."""
        with self._lock:
            if self._made is None:
                import boto3
                import botocore.session

                core = botocore.session.get_session()
                role = os.environ.get("AWS_ROLE_ARN")
                if role and self._web_identity_token is not None and "IDENTITY_ENDPOINT" in os.environ:
                    from shared.adapters.aws.federation import WebIdentityProvider

                    provider = WebIdentityProvider(core.create_client, _config(), role, self._web_identity_token)
                    core.get_component("credential_provider").insert_before("env", provider)
                region = os.environ.get("AWS_REGION") or None  # the SDK itself knows AWS_DEFAULT_REGION only
                self._made = boto3.Session(botocore_session=core, region_name=region)
            return self._made


def _config() -> Any:
    """Short waits: a function that hangs on one cloud could not use the other."""
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": 2}
    return Config(connect_timeout=2, read_timeout=20, retries=retries, max_pool_connections=32)


def failure(what: str, code: str, message: str, status: int = 0) -> OpportuneError:
    """AWS's error about `what` as this project's; `status` is the HTTP one, 0 where it is not known."""
    if code in _LOST:
        return ConflictError(f"{what}: somebody else was first")
    if code in _MISSING:
        return NotFoundError(f"{what} does not exist: {message}")
    if "capacity" in code.lower() and code not in _BUSY:
        return CapacityError(what, f"{code}: {message}")
    if 400 <= status < 500 and status not in (408, 429) and code not in _BUSY:
        return RefusedError(what, f"{code}: {message}")
    return UnavailableError(what, f"{code}: {message}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn SDK errors about `what` into this project's.

    Raises:
        ConflictError, NotFoundError: a condition did not hold, or there is no such thing.
        RefusedError, CapacityError: AWS will not, for good or for want of a machine.
        UnavailableError: no answer, or one that may be another a moment later.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as exc:
        told = exc.response.get("Error", {})
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        raise failure(what, str(told.get("Code", "")), str(told.get("Message", exc)), status) from exc
    except NoRegionError as exc:
        raise UnavailableError(what, "the region is unknown; set AWS_REGION") from exc
    except NoCredentialsError as exc:
        raise UnavailableError(what, "no credentials here; give the function a role, or log in to AWS") from exc
    except (BotoCoreError, ResponseParserError) as exc:
        raise UnavailableError(what, str(exc)) from exc


def described(what: str, describe: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """What `describe` returns, or None when SageMaker says (in a ValidationException) that there is no such thing."""
    try:
        with translated(what):
            return describe()
    except NotFoundError:
        return None
    except RefusedError as exc:
        words = str(exc).lower()
        if "validationexception" in words and ("not found" in words or "could not find" in words):
            return None
        raise


@contextmanager
def creating(what: str) -> Iterator[None]:
    """Runs a create; that something of the same name exists already is what a repeated call wants."""
    try:
        with translated(what):
            yield
    except RefusedError as exc:
        words = str(exc).lower()
        if "resourceinuse" not in words and "already exist" not in words:
            raise
