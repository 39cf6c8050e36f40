"""The process's one way into AWS: boto3's clients and credentials, and its errors as this project's.

Nothing is loaded before the first call that needs AWS: a function that never asks for it does not pay for it.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from shared.adapters.answers import understood
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
                core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
                core.register("before-parse", _no_page)
                role = os.environ.get("AWS_ROLE_ARN")
                if role and self._web_identity_token is not None and "IDENTITY_ENDPOINT" in os.environ:
                    from shared.adapters.aws.federation import WebIdentityProvider

                    provider = WebIdentityProvider(core.create_client, _config(), role, self._web_identity_token)
                    core.get_component("credential_provider").insert_before("env", provider)
                region = os.environ.get("AWS_REGION") or None  # the SDK itself knows AWS_DEFAULT_REGION only
                self._made = boto3.Session(botocore_session=core, region_name=region)
            return self._made


def _moment(value: Any) -> dt.datetime | None:
    """A time in an answer; None for one in a form of its own, as the rest of the answer is known all the same."""
    from botocore.utils import parse_timestamp

    try:
        return parse_timestamp(value)
    except (ArithmeticError, AttributeError, OSError, TypeError, ValueError, RuntimeError):
        return None


def _no_page(operation_model: Any, response_dict: Any, **_: Any) -> None:
    """Refuse a web page in the place of an answer: botocore reads one as an answer in which nothing is said."""
    from botocore.parsers import ResponseParserError

    body, protocol = response_dict.get("body"), operation_model.service_model.resolved_protocol
    if response_dict["status_code"] >= 300 or protocol != "json" or not isinstance(body, bytes):
        return
    if body.strip() and not body.lstrip().startswith(b"{"):
        raise ResponseParserError(f"the answer is no JSON object but {body[:60]!r}; does a proxy stand between?")


def _config() -> Any:
    """Short waits: a function that hangs on one cloud could not use the other."""
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": 2}
    return Config(connect_timeout=2, read_timeout=20, retries=retries, max_pool_connections=32)


def in_parts(part_bytes: int) -> Any:
    """How S3's client copies what is larger: in parts of this size, several at once."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=part_bytes, multipart_chunksize=part_bytes)


def failure(what: str, code: str, message: str, status: int = 0) -> OpportuneError:
    """AWS's error about `what` as this project's; `status` is the HTTP one, 0 where it is not known."""
    if not code or code.isdigit():  # a status without the service's own word for it: whoever answered, it was not AWS
        return UnavailableError(what, f"HTTP {status or code}: {' '.join(message.split())[:300]}")
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
        UnavailableError: no answer, one that may be another a moment later, or one that cannot be understood.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        NoRegionError,
        ParamValidationError,
    )
    from botocore.parsers import ResponseParserError

    try:
        with understood(what):
            yield
    except ClientError as exc:
        told = exc.response.get("Error", {})
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        raise failure(what, str(told.get("Code", "")), str(told.get("Message", exc)), status) from exc
    except NoRegionError as exc:
        raise UnavailableError(what, "the region is unknown; set AWS_REGION") from exc
    except NoCredentialsError as exc:
        raise UnavailableError(what, "no credentials here; give the function a role, or log in to AWS") from exc
    except ParamValidationError as exc:
        raise RefusedError(what, " ".join(str(exc).split())) from exc
    except (BotoCoreError, ResponseParserError) as exc:
        raise UnavailableError(what, " ".join(str(exc).split())[:500]) from exc


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
