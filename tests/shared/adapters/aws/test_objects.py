"""What S3 does beyond the port; the rest is in test_contract."""

import pytest

from shared.adapters.aws import objects as adapter
from shared.adapters.aws.objects import S3Objects
from shared.adapters.aws.session import AwsSession
from shared.errors import NotFoundError

pytestmark = pytest.mark.xdist_group("clouds")


def test_a_missing_bucket_is_named(moto):
    objects = S3Objects(AwsSession(), "no-such-bucket")
    for call in (lambda: objects.get("k"), lambda: objects.put("k", b""), lambda: list(objects.entries("p/"))):
        with pytest.raises(NotFoundError, match="s3://no-such-bucket/"):
            call()


def test_a_listing_goes_beyond_one_page(moto):
    session = AwsSession()
    # moto counts a page as S3 does: a thousand keys, unless asked for fewer
    session.client("s3").meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    objects = S3Objects(session, "opportune")
    for key in "abcde":
        objects.put(f"pages/{key}", b"")
    assert [entry.key for entry in objects.entries("pages/")] == [f"pages/{key}" for key in "abcde"]


def test_a_large_file_is_copied_in_parts_by_s3_itself(moto, monkeypatch):
    monkeypatch.setattr(adapter, "_COPIED_AT_ONCE", 5 * 1024 * 1024)
    session, sent = AwsSession(), []
    objects = adapter.S3Objects(session, "opportune")
    body = bytes(11 * 1024 * 1024)
    objects.put("large/a", body)
    session.client("s3").meta.events.register(
        "before-call.s3", lambda model, params, **_: sent.append((model.name, len(params["body"] or b"")))
    )
    objects.copy("large/a", "large/b")
    assert [name for name, _ in sent].count("UploadPartCopy") == 3
    assert sum(size for _, size in sent) < 10_000, "no byte of it passes through here"
    assert objects.get("large/b") == body


def test_of_two_uploads_begun_at_once_everybody_goes_on_with_the_same(moto):
    session = AwsSession()
    objects, s3 = adapter.S3Objects(session, "opportune"), session.client("s3")
    for _ in range(2):
        s3.create_multipart_upload(Bucket="opportune", Key="twice/a")
    objects.put_part("twice/a", 1, b"the end")
    assert objects.parts("twice/a") == {1: 7}
    objects.finish_parts("twice/a", 1)
    assert objects.get("twice/a") == b"the end"
    objects.finish_parts("twice/a", 1)  # an upload is left over, and the object is there
