"""Objects in one S3 bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from shared.adapters.aws.session import AwsSession, in_parts, translated
from shared.errors import ConflictError, NotFoundError, RefusedError
from shared.values import Document, ObjectEntry

#: a copy beyond this size is one of several parts at once, each within S3's limit and a few seconds
_COPIED_AT_ONCE: Final = 64 * 1024 * 1024


class S3Objects:
    """ObjectStore on one bucket; the parts of an object are an unfinished multipart upload."""

    def __init__(self, session: AwsSession, bucket: str) -> None:
        self._session = session
        self._bucket = bucket

    @property
    def _s3(self) -> Any:
        return self._session.client("s3")

    def get(self, key: str) -> bytes:
        """The object's bytes; NotFoundError when there is none."""
        found = self.get_tagged(key)
        assert found is not None, "without a condition there is an answer or an error"
        return found.body

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        with translated(self.uri(key)):
            _ = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)["ETag"]

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None:
        """The object and its tag; None while it has the tag `if_none_match`."""
        known = {"IfNoneMatch": if_none_match} if if_none_match else {}
        with translated(self.uri(key)):
            answer = _or_none(304, lambda: self._s3.get_object(Bucket=self._bucket, Key=key, **known))
            # S3 names the tag of each object; what has none is of somebody in between
            return Document(bytes(answer["Body"].read()), str(answer["ETag"])) if answer is not None else None

    def put_tagged(self, key: str, body: bytes, *, if_etag: str | None) -> str:
        """Replace it as it was read, or create it."""
        condition = {"IfNoneMatch": "*"} if if_etag is None else {"IfMatch": if_etag}
        try:
            with translated(self.uri(key)):
                return str(self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, **condition)["ETag"])
        except NotFoundError as exc:
            if if_etag is not None and "NoSuchBucket" not in str(exc):
                raise ConflictError(f"{self.uri(key)}: deleted meanwhile") from exc
            raise
        except RefusedError as exc:
            if "ConditionalRequestConflict" in str(exc):  # another write of it is going on
                raise ConflictError(f"{self.uri(key)}: somebody else is faster") from exc
            raise

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        """What lies under the prefix, ascending, a page at a time."""
        with translated(self.uri(prefix)):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for one in page.get("Contents", []):
                    yield ObjectEntry(str(one["Key"]), int(one["Size"]), one["LastModified"].timestamp())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on; none beyond the end."""
        wanted = f"bytes={start}-{start + length - 1}"
        with translated(self.uri(key)):
            answer = _or_none(416, lambda: self._s3.get_object(Bucket=self._bucket, Key=key, Range=wanted))
            if answer is None:
                return b""
            _ = answer["ETag"]
            return bytes(answer["Body"].read())

    def copy(self, source_key: str, key: str) -> None:
        """Inside S3, in parts of their own where it is large: S3 copies at most 5 GB in one go."""
        config = in_parts(_COPIED_AT_ONCE)
        source = {"Bucket": self._bucket, "Key": source_key}

        def copied() -> bool:
            self._s3.copy(source, self._bucket, key, Config=config)
            return True

        with translated(self.uri(source_key)):
            there = _or_none(404, copied)
        if not there:
            raise NotFoundError(f"{self.uri(source_key)} does not exist")

    def parts(self, key: str) -> dict[int, int]:
        """Number and size of the parts that are there."""
        with translated(self.uri(key)):
            upload = self._upload(key)
            return {number: size for number, (size, _) in self._listed(key, upload).items()} if upload else {}

    def put_part(self, key: str, number: int, body: bytes) -> None:
        """Upload one part; without an unfinished upload of the key, begin one."""
        with translated(self.uri(key)):
            upload = self._upload(key)
            if upload is None:
                upload = self._s3.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
            which = {"Bucket": self._bucket, "Key": key, "UploadId": upload, "PartNumber": number}
            _ = self._s3.upload_part(**which, Body=body)["ETag"]

    def finish_parts(self, key: str, count: int) -> None:
        """Complete the upload; where it is gone or not whole, the object must be there already."""
        with translated(self.uri(key)):
            upload = self._upload(key)
            there = self._listed(key, upload) if upload else {}
            missing = next((number for number in range(1, count + 1) if number not in there), None)
            if missing is None:
                parts = [{"PartNumber": number, "ETag": there[number][1]} for number in range(1, count + 1)]
                which = {"Bucket": self._bucket, "Key": key, "UploadId": upload}
                _ = self._s3.complete_multipart_upload(**which, MultipartUpload={"Parts": parts})["ETag"]
                return
        if not any(entry.key == key for entry in self.entries(key)):
            raise NotFoundError(f"{self.uri(key)}: part {missing} of {count} does not exist")

    def _upload(self, key: str) -> str | None:
        """The unfinished upload of the key. Of several, which two began at once, everybody goes on with the same."""
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=key)
        found = [one for page in pages for one in page.get("Uploads", []) if one["Key"] == key]
        first = min(found, key=lambda one: (one["Initiated"], one["UploadId"]), default=None)
        return str(first["UploadId"]) if first else None

    def _listed(self, key: str, upload: str) -> dict[int, tuple[int, str]]:
        pages = self._s3.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=upload)
        found = [one for page in pages for one in page.get("Parts", [])]
        return {int(one["PartNumber"]): (int(one["Size"]), str(one["ETag"])) for one in found}

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return f"s3://{self._bucket}/{key}"


def _or_none(status: int, call: Callable[[], Any]) -> Any:
    """What S3 answers; None where that is one HTTP status which is no error, whatever word it has for it."""
    from botocore.exceptions import ClientError

    try:
        return call()
    except ClientError as exc:
        if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != status:
            raise
        return None
