"""The embedded Lambda feeds functions, in Lambda's runtime, as AWS does, and outlives what they do wrong."""

import json
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.clouds.aws.gateway import response_of
from local.clouds.aws.triggers import failed_ids, scheduled_event
from local.processes.supervisor import Service, free_port, http_ok

pytestmark = pytest.mark.xdist_group("local-clouds")

# Real handlers: they write down what they were called with.
HANDLERS = textwrap.dedent(
    """
    import base64, json, os, pathlib

    def note(name, event, context):
        line = json.dumps({"event": event, "id": context.aws_request_id,
                           "left_ms": context.get_remaining_time_in_millis()})
        with (pathlib.Path(os.environ["OPPORTUNE_NOTES"]) / name).open("a") as out:
            out.write(line + "\\n")

    def schedule(event, context):
        note("schedule", event, context)
        raise RuntimeError("a bad tick")

    def retrain(event, context):
        note("retrain", event, context)
        if any(r["body"] == "explode" for r in event["Records"]):
            raise RuntimeError("exploded")
        return {"batchItemFailures": [{"itemIdentifier": r["messageId"]}
                                      for r in event["Records"] if r["body"] == "bad"]}

    def events(event, context):
        note("events", event, context)

    def http(event, context):
        if event["rawPath"] == "/explode":
            raise RuntimeError("exploded")
        if event["rawPath"] == "/binary":
            return {"statusCode": 201, "isBase64Encoded": True, "body": base64.b64encode(b"\\x00\\xff").decode(),
                    "cookies": ["a=1", "b=2"], "headers": {"X-Thing": "yes"}}
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(event)}
    """
)


@pytest.fixture(scope="module")
def host(local_aws: Any, running: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """(url of the HTTP face, folder of notes, client of SQS, url of the retrain queue, url of its dead letters)."""
    folder, port = tmp_path_factory.mktemp("host"), free_port()
    (folder / "tiny_handlers.py").write_text(HANDLERS)
    sqs = local_aws.client("sqs")
    dead = sqs.create_queue(QueueName="t-dlq")["QueueUrl"]
    redrive = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:t-dlq", "maxReceiveCount": "2"}
    queue = sqs.create_queue(
        QueueName="t-retrain", Attributes={"VisibilityTimeout": "1", "RedrivePolicy": json.dumps(redrive)}
    )["QueueUrl"]
    sqs.create_queue(QueueName="t-events", Attributes={"VisibilityTimeout": "1"})
    env = {
        "OPPORTUNE_NOTES": str(folder),
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "OPPORTUNE_QUEUE": "t-retrain",
        "OPPORTUNE_SLOT_SECONDS": "1",
    }
    names = [f"--{name}=tiny_handlers.{name}" for name in ("schedule", "retrain", "events", "http")]
    command = [
        sys.executable,
        "-m",
        "local.clouds.aws.host",
        "--http-port",
        str(port),
        "--package",
        str(folder),
        *names,
        "--events-queue=t-events",
    ]
    url = f"http://127.0.0.1:{port}"
    running.start(Service("aws-host", command, http_ok(url), env))
    yield url, folder, sqs, queue, dead
    running.stop_one("aws-host")


def notes(folder: Path, name: str) -> list[Any]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_schedule_fires_at_every_slot_also_after_a_failure(host: Any, eventually: Any) -> None:
    ticks = eventually(lambda: len(notes(host[1], "schedule")) >= 2 and notes(host[1], "schedule"))
    event = ticks[0]["event"]
    assert event["detail-type"] == "Scheduled Event"
    assert event["source"] == "aws.events"
    assert event["time"].endswith("Z") and "." not in event["time"]
    assert len({tick["event"]["time"] for tick in ticks}) == len(ticks)
    assert ticks[0]["id"] != ticks[1]["id"]
    assert 0 < ticks[0]["left_ms"] <= 60_000


def test_only_the_failed_message_of_a_batch_comes_again_and_then_goes_to_the_dead_letters(
    host: Any, eventually: Any
) -> None:
    _, folder, sqs, queue, dead = host
    sqs.send_message_batch(
        QueueUrl=queue, Entries=[{"Id": "1", "MessageBody": "good"}, {"Id": "2", "MessageBody": "bad"}]
    )
    kept = eventually(lambda: sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages"))
    assert kept[0]["Body"] == "bad"
    records = [record for note in notes(folder, "retrain") for record in note["event"]["Records"]]
    assert [r["body"] for r in records].count("good") == 1
    counts = [r["attributes"]["ApproximateReceiveCount"] for r in records if r["body"] == "bad"]
    assert counts == ["1", "2"]
    assert records[0]["eventSourceARN"].endswith(":t-retrain")
    sqs.delete_message(QueueUrl=dead, ReceiptHandle=kept[0]["ReceiptHandle"])


def test_a_handler_that_raises_sees_the_message_again(host: Any, eventually: Any) -> None:
    _, folder, sqs, queue, dead = host
    sqs.send_message(QueueUrl=queue, MessageBody="explode")
    kept = eventually(lambda: sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages"))
    assert kept[0]["Body"] == "explode"
    bodies = [r["body"] for note in notes(folder, "retrain") for r in note["event"]["Records"]]
    assert bodies.count("explode") == 2


def test_a_completion_event_is_handed_over_as_it_is(host: Any, eventually: Any) -> None:
    _, folder, sqs, *_ = host
    url = sqs.get_queue_url(QueueName="t-events")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"source": "aws.sagemaker", "detail": {"x": 1}}))
    note = eventually(lambda: notes(folder, "events"))[0]
    assert note["event"] == {"source": "aws.sagemaker", "detail": {"x": 1}}


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.headers, exc.read()


def test_a_request_becomes_a_version_2_event(host: Any) -> None:
    body = json.dumps({"question": "où?"}).encode()
    headers = {"Content-Type": "application/json", "Cookie": "a=1; b=2", "X-Id": "7"}
    status, _, raw = ask(f"{host[0]}/predict/a%20b?x=1&x=2&y=", body, headers)
    event = json.loads(raw)
    assert status == 200
    assert event["version"] == "2.0"
    assert event["rawPath"] == "/predict/a b"
    assert event["queryStringParameters"] == {"x": "1,2", "y": ""}
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["headers"]["x-id"] == "7"
    assert event["cookies"] == ["a=1", "b=2"]
    assert json.loads(event["body"]) == {"question": "où?"}
    assert event["isBase64Encoded"] is False


def test_binary_bodies_travel_as_base64_both_ways(host: Any) -> None:
    _, _, raw = ask(f"{host[0]}/echo", b"\x00\xff", {"Content-Type": "application/octet-stream"})
    event = json.loads(raw)
    assert event["isBase64Encoded"] is True
    assert event["body"] == "AP8="
    status, headers, raw = ask(f"{host[0]}/binary")
    assert (status, raw, headers["X-Thing"]) == (201, b"\x00\xff", "yes")
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_a_handler_that_raises_is_a_500_and_the_host_goes_on(host: Any) -> None:
    status, _, raw = ask(f"{host[0]}/explode")
    assert (status, json.loads(raw)) == (500, {"message": "Internal Server Error"})
    assert ask(f"{host[0]}/again")[0] == 200


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (None, set()),
        ({}, set()),
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"a"}),
        ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, {"a", "b"}),
        ({"batchItemFailures": ["a"]}, {"a", "b"}),
        ("done", {"a", "b"}),
    ],
)
def test_partial_batch_responses_are_read_as_lambda_reads_them(answer: Any, failed: Any) -> None:
    assert failed_ids(answer, {"a", "b"}) == failed


def test_an_answer_without_a_status_is_a_json_body() -> None:
    assert response_of({"ok": True}) == (200, [("content-type", "application/json")], b'{"ok": true}')


def test_a_shortened_slot_keeps_its_fraction() -> None:
    assert scheduled_event(1.5)["time"] == "1970-01-01T00:00:01.500000Z"
