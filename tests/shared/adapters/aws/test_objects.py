"""What S3 does beyond the port; the rest is in test_contract."""

import pytest

from shared.adapters.aws.objects import S3Objects
from shared.adapters.aws.session import AwsSession
from shared.errors import NotFoundError

pytestmark = pytest.mark.xdist_group("clouds")


def test_a_missing_bucket_is_named(moto):
    objects = S3Objects(AwsSession(), "no-such-bucket")
    for call in (lambda: objects.get("k"), lambda: objects.put("k", b""), lambda: objects.list("p/")):
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
    assert list(objects.list("pages/")) == [f"pages/{key}" for key in "abcde"]
