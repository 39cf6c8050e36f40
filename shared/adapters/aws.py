"""AWS storage and queue behind the ports: S3, SQS. The SDK is imported at the first call, not before."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from shared.contracts import TrainingJob, encode
from shared.errors import ConflictError, NotFoundError, OpportuneError, UnavailableError
from shared.ports import DeadLetter

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


@functools.cache
def session() -> Any:
    """The process's SDK session: boto3's core without its transfer manager, a tenth of a second of every cold start.

    In Azure the function app's managed identity takes AWS_ROLE_ARN on: its Entra token is exchanged at AWS STS, so no
    key of AWS is stored there.
    """
    import botocore.session

    made = botocore.session.get_session()
    role = os.environ.get("AWS_ROLE_ARN")
    if role and "IDENTITY_ENDPOINT" in os.environ:
        from botocore.credentials import AssumeRoleWithWebIdentityCredentialFetcher, DeferredRefreshableCredentials

        from shared.adapters.entra import Entra

        audience = os.environ.get("AWS_ROLE_AUDIENCE", "api://opportune")
        fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
            client_creator=made.create_client,
            web_identity_token_loader=functools.partial(Entra().token, audience),
            role_arn=role,
        )
        made._credentials = DeferredRefreshableCredentials(
            method="assume-role-with-web-identity", refresh_using=fetcher.fetch_credentials
        )
    return made


@functools.cache
def client(service: str) -> Any:
    """One SDK client per service and process; the region and AWS_ENDPOINT_URL come from the environment."""
    from botocore.config import Config

    # Short waits: a function that hangs on one cloud could not use the other.
    retries = {"mode": "standard", "total_max_attempts": 2}
    config = Config(connect_timeout=2, read_timeout=20, retries=retries, max_pool_connections=32)
    return session().create_client(service, config=config)


def failure(what: str, code: str, message: str) -> OpportuneError:
    """AWS's error about `what` as this project's."""
    if code in _LOST:
        return ConflictError(f"{what}: somebody else was first")
    if code in _MISSING:
        return NotFoundError(f"{what} does not exist: {message}")
    return UnavailableError(what, f"{code}: {message}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn SDK errors about `what` into this project's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        told = exc.response.get("Error", {})
        raise failure(what, str(told.get("Code", "")), str(told.get("Message", exc))) from exc
    except BotoCoreError as exc:
        raise UnavailableError(what, str(exc)) from exc


class S3Objects:
    """ObjectStore on one bucket."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        """The object's bytes; NotFoundError when there is none."""
        with translated(self.uri(key)):
            return bytes(client("s3").get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        with translated(self.uri(key)):
            client("s3").put_object(Bucket=self._bucket, Key=key, Body=body)

    def list(self, prefix: str) -> Iterable[str]:
        """Keys under the prefix, ascending."""
        with translated(self.uri(prefix)):
            pages = client("s3").get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return f"s3://{self._bucket}/{key}"


class SqsQueue:
    """JobQueue on SQS; the dead-letter queue keeps the reason as a message attribute."""

    def __init__(self, queue: str, dead_letter_queue: str) -> None:
        self._queue = queue
        self._dead_letter_queue = dead_letter_queue
        self._urls: dict[str, str] = {}

    def _url(self, queue: str) -> str:
        if queue not in self._urls:
            self._urls[queue] = client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]
        return self._urls[queue]

    def enqueue(self, job: TrainingJob) -> None:
        """Send the job; a duplicate is harmless because its consumer claims by job_id."""
        with translated(f"SQS queue {self._queue}"):
            client("sqs").send_message(QueueUrl=self._url(self._queue), MessageBody=encode(job).decode())

    def dead_letter(self, body: str, reason: str) -> None:
        """Keep the message with its reason."""
        # SQS refuses an empty body and most control characters; a message must not be lost for that.
        kept = "".join(c if c >= " " or c in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for c in body) or "(empty)"
        attribute = {"reason": {"DataType": "String", "StringValue": reason[:1024] or "unknown"}}
        with translated(f"SQS queue {self._dead_letter_queue}"):
            client("sqs").send_message(
                QueueUrl=self._url(self._dead_letter_queue), MessageBody=kept, MessageAttributes=attribute
            )

    def depth(self) -> int:
        """About how many jobs wait."""
        with translated(f"SQS queue {self._queue}"):
            answer = client("sqs").get_queue_attributes(
                QueueUrl=self._url(self._queue), AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def dead_letters(self, hide_s: int = 60) -> list[DeadLetter]:
        """The messages kept, hidden for `hide_s`."""
        found: list[DeadLetter] = []
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            while (
                messages := client("sqs")
                .receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=hide_s, MessageAttributeNames=["reason"]
                )
                .get("Messages")
            ):
                for message in messages:
                    attribute = message.get("MessageAttributes", {}).get("reason", {})
                    reason = attribute.get("StringValue", "delivered too often; the retrain function's log says why")
                    found.append(DeadLetter(message["Body"], reason, message["ReceiptHandle"]))
        return found

    def dead_letter_count(self) -> int:
        """About how many messages are kept, hidden ones among them."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            answer = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def release(self, letter: DeadLetter) -> None:
        """Show a hidden message again."""
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            client("sqs").change_message_visibility(QueueUrl=url, ReceiptHandle=letter.receipt, VisibilityTimeout=0)

    def forget(self, letter: DeadLetter) -> None:
        """Remove a message that was kept."""
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            client("sqs").delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)
