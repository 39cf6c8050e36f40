"""Documents in one DynamoDB table: hash key `kind`, range key `key`, attributes body, etag, expires_s."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any, Final

from shared.adapters.aws.session import AwsSession, translated
from shared.errors import ConflictError, UnavailableError
from shared.ports import Clock
from shared.values import Document, DocumentKey

#: kind whose documents DynamoDB deletes after their time to live
_EXPIRING: Final = "decision"
#: how often what DynamoDB left out of a batch is asked for again
_ROUNDS: Final = 5


class DynamoDocuments:
    """DocumentStore on one table."""

    def __init__(self, session: AwsSession, table: str, ttl_days: float, clock: Clock = time.time) -> None:
        self._session = session
        self._table = table
        self._ttl_s = ttl_days * 86400
        self._clock = clock
        self._what = f"DynamoDB table {table}"

    def get(self, kind: str, key: str) -> Document | None:
        """The document, read consistently, or None."""
        with translated(self._what):
            dynamodb = self._session.client("dynamodb")
            item = dynamodb.get_item(TableName=self._table, Key=_key(kind, key), ConsistentRead=True).get("Item")
            return _document(item) if item else None

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that exist, read consistently, at once; at most 100."""
        found: dict[DocumentKey, Document] = {}
        asked: dict[str, Any] = {self._table: {"Keys": [_key(kind, key) for kind, key in keys], "ConsistentRead": True}}
        for _ in range(_ROUNDS):
            with translated(self._what):
                answer = self._session.client("dynamodb").batch_get_item(RequestItems=asked)
                # where nothing was found DynamoDB says so; an answer that says nothing at all is none
                for item in answer["Responses"].get(self._table, []):
                    found[item["kind"]["S"], item["key"]["S"]] = _document(item)
                asked = answer.get("UnprocessedKeys") or {}
            if not asked:
                return found
        raise UnavailableError(self._what, "left part of a batch unread; try again")

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port.

        boto3 repeats a write whose answer was lost, and then meets what it wrote itself: the tag tells that apart.
        """
        etag = secrets.token_hex(8)
        item: dict[str, Any] = {**_key(kind, key), "body": {"B": body}, "etag": {"S": etag}}
        if kind == _EXPIRING:
            item["expires_s"] = {"N": str(int(self._clock() + self._ttl_s))}
        condition: dict[str, Any] = {}
        if if_absent:
            condition = {
                "ConditionExpression": "attribute_not_exists(#key)",
                "ExpressionAttributeNames": {"#key": "key"},
            }
        elif if_etag is not None:
            condition = {"ConditionExpression": "etag = :etag", "ExpressionAttributeValues": {":etag": {"S": if_etag}}}
        if condition:
            condition["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            with translated(f"{self._what}, {kind} {key}"):
                self._session.client("dynamodb").put_item(TableName=self._table, Item=item, **condition)
        except ConflictError as exc:
            there = getattr(exc.__cause__, "response", {}).get("Item", {})
            if there.get("etag") != item["etag"]:
                raise
        return etag

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Ascending by key from `since`."""
        # DynamoDB reserves the word `key`, and refuses an empty key value.
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "kind = :kind",
            "ExpressionAttributeNames": {"#key": "key"},
            "ExpressionAttributeValues": {":kind": {"S": kind}},
            "ProjectionExpression": "#key, body",
        }
        if since:
            request["KeyConditionExpression"] += " AND #key >= :since"
            request["ExpressionAttributeValues"][":since"] = {"S": since}
        found: list[tuple[str, bytes]] = []
        while len(found) < limit:
            with translated(self._what):
                answer = self._session.client("dynamodb").query(**request, Limit=limit - len(found))
                found += [(item["key"]["S"], _body(item)) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                break
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return found


def _key(kind: str, key: str) -> dict[str, Any]:
    return {"kind": {"S": kind}, "key": {"S": key}}


def _document(item: dict[str, Any]) -> Document:
    return Document(_body(item), str(item.get("etag", {}).get("S", "")))


def _body(item: dict[str, Any]) -> bytes:
    """The content, empty where another hand left none: one such item must not hide the others."""
    body = item.get("body", {}).get("B", b"")
    return bytes(body)
