"""Objects in one S3 bucket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.adapters.aws.session import AwsSession, translated


def content(answer: dict[str, Any]) -> bytes:
    """The object that S3 answers with. S3 names the tag of each; what has none is of somebody in between."""
    _ = answer["ETag"]
    return bytes(answer["Body"].read())


class S3Objects:
    """ObjectStore on one bucket."""

    def __init__(self, session: AwsSession, bucket: str) -> None:
        self._session = session
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        """The object's bytes; NotFoundError when there is none."""
        with translated(self.uri(key)):
            return content(self._session.client("s3").get_object(Bucket=self._bucket, Key=key))

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        with translated(self.uri(key)):
            _ = self._session.client("s3").put_object(Bucket=self._bucket, Key=key, Body=body)["ETag"]

    def list(self, prefix: str) -> Iterable[str]:
        """Keys under the prefix, ascending."""
        with translated(self.uri(prefix)):
            pages = self._session.client("s3").get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self._bucket, Prefix=prefix)
            return [entry["Key"] for page in found for entry in page.get("Contents", [])]

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return f"s3://{self._bucket}/{key}"
