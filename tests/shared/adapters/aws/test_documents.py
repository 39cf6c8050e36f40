"""What DynamoDB's documents do beyond the port; the rest is in test_contract."""

import boto3
import pytest
from botocore.stub import Stubber

from shared.adapters.aws.documents import DynamoDocuments
from shared.adapters.aws.session import AwsSession
from shared.errors import NotFoundError, UnavailableError

pytestmark = pytest.mark.xdist_group("clouds")


def test_decisions_expire_and_jobs_do_not(moto):
    documents = DynamoDocuments(AwsSession(), "opportune", 2.0, lambda: 1_000.0)
    for kind in ("decision", "job"):
        documents.put(kind, "ttl-test", b"x")
    item = {
        kind: boto3.client("dynamodb").get_item(
            TableName="opportune", Key={"kind": {"S": kind}, "key": {"S": "ttl-test"}}
        )["Item"]
        for kind in ("decision", "job")
    }
    assert item["decision"]["expires_s"] == {"N": str(1_000 + 2 * 86400)}
    assert "expires_s" not in item["job"]


def test_a_missing_table_is_named(moto):
    with pytest.raises(NotFoundError, match="nowhere"):
        DynamoDocuments(AwsSession(), "nowhere", 1.0).get("job", "x")


def test_a_cloud_that_does_not_answer_is_unavailable_within_seconds(moto, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="DynamoDB table opportune"):
        DynamoDocuments(AwsSession(), "opportune", 1.0).get("job", "x")


@pytest.fixture
def stubbed(monkeypatch):
    """Documents of a table `t`, and the answers to come."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    session = AwsSession()
    with Stubber(session.client("dynamodb")) as answers:
        yield DynamoDocuments(session, "t", 1.0), answers


def keys(*names):
    return {"t": {"Keys": [{"kind": {"S": "job"}, "key": {"S": name}} for name in names], "ConsistentRead": True}}


def item(name):
    return {"kind": {"S": "job"}, "key": {"S": name}, "body": {"B": name.encode()}, "etag": {"S": "e"}}


def test_what_a_batch_left_out_is_asked_for_again(stubbed):
    documents, answers = stubbed
    first = {"Responses": {"t": [item("a")]}, "UnprocessedKeys": keys("b")}
    answers.add_response("batch_get_item", first, {"RequestItems": keys("a", "b")})
    answers.add_response("batch_get_item", {"Responses": {"t": [item("b")]}}, {"RequestItems": keys("b")})
    found = documents.get_many([("job", "a"), ("job", "b")])
    assert found == {("job", "a"): (b"a", "e"), ("job", "b"): (b"b", "e")}
    answers.assert_no_pending_responses()


def test_a_batch_that_stays_half_read_is_an_error_not_half_the_documents(stubbed):
    documents, answers = stubbed
    for _ in range(5):
        answers.add_response("batch_get_item", {"Responses": {}, "UnprocessedKeys": keys("a")})
    with pytest.raises(UnavailableError, match="part of a batch unread"):
        documents.get_many([("job", "a")])
    answers.assert_no_pending_responses()
