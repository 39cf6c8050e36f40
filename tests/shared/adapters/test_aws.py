import boto3
import pytest

from shared.adapters import aws
from shared.adapters.dynamodb import DynamoDocuments
from shared.errors import NotFoundError, UnavailableError

pytestmark = pytest.mark.xdist_group("clouds")


def test_decisions_expire_and_jobs_do_not(moto):
    documents = DynamoDocuments("opportune", 2.0, lambda: 1_000.0)
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


def test_a_missing_table_or_queue_is_named(moto):
    with pytest.raises(NotFoundError, match="nowhere"):
        DynamoDocuments("nowhere", 1.0).get("job", "x")
    with pytest.raises(NotFoundError, match="lost-dlq"):
        aws.SqsQueue("lost-queue", "lost-dlq").dead_letter("x", "y")


def test_a_cloud_that_does_not_answer_is_unavailable_within_seconds(moto, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws.client.cache_clear()
    try:
        with pytest.raises(UnavailableError, match="DynamoDB table opportune"):
            DynamoDocuments("opportune", 1.0).get("job", "x")
    finally:
        aws.client.cache_clear()
