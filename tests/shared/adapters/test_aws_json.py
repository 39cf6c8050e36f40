"""A service that refuses, stumbles or answers with something else."""

import json

import pytest

from shared.adapters.aws_json import JsonService
from shared.errors import ConflictError, NotFoundError, UnavailableError

SERVICE = JsonService("dynamodb", "DynamoDB_20120810", "1.0")
THROTTLED = (400, b'{"__type": "com.amazonaws.dynamodb#ThrottlingException", "message": "slow down"}')


@pytest.fixture
def answers(monkeypatch, http_server):
    """The answers to come, (status, body); every request takes one and leaves its operation."""
    to_come, asked = [], []

    def answer(request):
        asked.append(request.headers["X-Amz-Target"])
        return to_come.pop(0)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    with http_server(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        yield to_come, asked


@pytest.mark.parametrize("first", [THROTTLED, (503, b"<html>"), (200, b"not JSON")])
def test_a_stumble_is_asked_again(answers, first):
    to_come, asked = answers
    to_come += [first, (200, b'{"Item": {}}')]
    assert SERVICE.call("GetItem", {}, "the table") == {"Item": {}}
    assert asked == ["DynamoDB_20120810.GetItem"] * 2


def test_twice_is_an_error_that_says_what_and_why(answers):
    answers[0].extend([THROTTLED] * 2)
    with pytest.raises(UnavailableError, match=r"the table.*ThrottlingException: slow down"):
        SERVICE.call("GetItem", {}, "the table")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ConditionalCheckFailedException", ConflictError),
        ("ResourceNotFoundException", NotFoundError),
        ("AccessDeniedException", UnavailableError),
    ],
)
def test_a_refusal_is_final(answers, code, error):
    to_come, asked = answers
    to_come.append((400, json.dumps({"__type": code, "Message": "no"}).encode()))
    with pytest.raises(error, match="the table"):
        SERVICE.call("PutItem", {}, "the table")
    assert len(asked) == 1
