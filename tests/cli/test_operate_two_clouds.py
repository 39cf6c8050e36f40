"""The commands that operate a deployment on two clouds, in memory: what is said and exited with when one is away."""

from __future__ import annotations

import json

import msgspec
import pytest

from shared.state import State

JOB = {"job_id": "ops-1", "service": "ops"}


@pytest.mark.parametrize(("command", "word"), [("pause", "paused"), ("resume", "resumed")])
def test_a_cloud_that_was_not_reached_is_named_and_the_exit_code_is_1(
    command: str, word: str, typed, azure_away
) -> None:
    done = typed(command)
    assert done.returncode == 1
    assert done.stdout == f"ops {word} on aws\n"
    assert done.stderr.startswith(f"opportune: ops is NOT {word} on azure: DynamoDB table opportune is unavailable")
    assert done.stderr.count("\n") == 1
    assert State(azure_away["aws"].documents).control("ops").paused is (command == "pause")


def test_pause_in_json_says_where_it_holds_and_where_not(typed, azure_away) -> None:
    done = typed("pause", "--reason", "incident 42", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["service"], told["paused"], told["reason"]) == ("ops", True, "incident 42")
    assert told["done"] == ["aws"]
    assert "connection refused" in told["failed"]["azure"]


def test_no_cloud_reached_is_exit_code_2(typed, azure_away) -> None:
    azure_away["aws"] = azure_away["azure"]
    done = typed("pause")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("NOT paused on") == 2


def test_both_clouds_reached_is_exit_code_0(typed, two_clouds) -> None:
    assert typed("pause").returncode == 0
    found = json.loads(typed("status", "--json").stdout)
    assert found["failed"] == {}
    assert [found["clouds"][cloud]["paused"] for cloud in ("aws", "azure")] == [True, True]


@pytest.mark.parametrize("command", ["status", "decisions", "redrive"])
def test_half_an_answer_is_shown_with_exit_code_1(command: str, typed, azure_away) -> None:
    done = typed(command)
    assert done.returncode == 1
    assert done.stdout
    assert "azure: DynamoDB table opportune is unavailable" in done.stderr


def test_a_letter_that_is_left_is_counted_and_can_be_redriven_at_once(typed, two_clouds, a_job) -> None:
    queue = two_clouds["aws"].queue
    queue.dead_letter("{oops", "not JSON")
    queue.dead_letter(msgspec.json.encode(a_job(**JOB)).decode(), "an outage")
    for dry_run in ("--dry-run", "--dry-run"):  # a look hides nothing from the next
        looked = json.loads(typed("redrive", dry_run, "--json").stdout)["clouds"]["aws"]
        assert looked["sent"] == [{"job_id": "ops-1", "reason": "an outage"}]
        assert looked["left"] == [{"body": "{oops", "reason": "not JSON"}]
    assert "aws: 1 sent back, 1 left" in typed("redrive").stdout
    assert "dead        1 messages; see `opportune redrive --dry-run`" in typed("status").stdout
    assert json.loads(typed("status", "--json").stdout)["clouds"]["aws"]["dead_letters"] == 1
    assert "aws: 0 sent back, 1 left" in typed("redrive").stdout
    assert queue.depth() == 1


def test_letters_are_shown_again_when_sending_them_back_fails(typed, two_clouds, a_job, monkeypatch) -> None:
    from shared.errors import UnavailableError

    queue = two_clouds["aws"].queue
    queue.dead_letter(msgspec.json.encode(a_job(**JOB)).decode(), "an outage")

    def refuse(job: object) -> None:
        raise UnavailableError("SQS queue opportune-retrain", "connection refused")

    monkeypatch.setattr(queue, "enqueue", refuse)
    done = typed("redrive")
    assert done.returncode == 1
    assert "opportune: not everything was looked at on aws: SQS queue" in done.stderr
    assert len(queue.dead_letters()) == 1


def test_doctor_in_json_has_every_line(typed, azure_away, monkeypatch) -> None:
    monkeypatch.setenv("OPPORTUNE_PROMETHEUS_URL", "http://127.0.0.1:9")
    done = typed("doctor", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    checks = {one["name"]: one for one in told["checks"]}
    assert told["ok"] is False
    assert checks["aws table"] == {"name": "aws table", "ok": True, "level": "ok", "says": "answers"}
    assert checks["aws dead letters"]["says"] == "0 messages"
    assert checks["azure table"]["ok"] is False
    assert "ok    aws table: answers" in done.stderr
