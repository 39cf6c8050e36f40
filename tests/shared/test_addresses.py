"""Users and passwords in addresses: used, and shown nowhere."""

from __future__ import annotations

import json
import logging

import msgspec
import pytest

from functions.retraining.job_message import difference, training_job
from policy.decide import DecisionContext, decide
from policy.policies import live_policy
from shared.addresses import host_of, parted, shown, without_users
from shared.contracts import Action
from shared.errors import MetricsUnavailableError
from shared.logs import JsonFormatter
from shared.settings import Settings

SECRET = "https://reader:s3cr3t@prometheus.example:9090/prefix"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:9090", "http://127.0.0.1:9090"),
        (SECRET, "https://prometheus.example:9090/prefix"),
        ("https://reader@host", "https://host"),
        ("https://reader:s3/cr3t?x#y@host/p", "https://host/p"),
        ("https://reader:s3@cr3t@host", "https://host"),
        ("https://host/p?token=s3cr3t#s3cr3t", "https://host/p"),
        ("reader:s3cr3t@host:9090", "host:9090"),
        ("azureml:https://reader:s3cr3t@host/score", "azureml:https://host/score"),
        ("sagemaker:opportune-qa", "sagemaker:opportune-qa"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(address: str, told: str) -> None:
    assert shown(address) == told


def test_a_service_is_named_by_host_and_port() -> None:
    assert host_of(SECRET) == "prometheus.example:9090"
    assert host_of("http://[::1]:80?x") == "[::1]:80"


def test_the_parts_of_an_address_are_decoded() -> None:
    assert parted("https://us%40er:p%2Fw%3A@host:1/x?y=1") == ("https://host:1/x?y=1", ("us@er", "p/w:"))
    assert parted("https://token@host") == ("https://host", ("token", ""))
    assert parted("https://host/a@b") == ("https://host/a@b", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"GET {SECRET} failed", "GET https://prometheus.example:9090/prefix failed"),
        (
            f"'{SECRET}', '{SECRET}'",
            "'https://prometheus.example:9090/prefix', 'https://prometheus.example:9090/prefix'",
        ),
        ("Failed to parse: https://reader:s3/cr3t@host", "Failed to parse: https://host"),
        ("https://host:9090/a@b and me@host", "https://host:9090/a@b and me@host"),
        ("s3://bucket/key@2", "s3://bucket/key@2"),
        ("me@host", "me@host"),
    ],
)
def test_users_are_taken_out_of_a_text_and_nothing_else_is(text: str, told: str) -> None:
    assert without_users(text) == told


def test_settings_are_shown_without_the_password_of_any_address() -> None:
    urls = (
        "prometheus_url",
        "prometheus_url_aws",
        "prometheus_url_azure",
        "aws_endpoint_url",
        "azure_endpoint_url",
        "azureml_url",
    )
    plain = Settings(base_model="https://me:s3cr3t@hub/x", operator_token="s3cr3t")
    settings = msgspec.structs.replace(plain, **dict.fromkeys(urls, SECRET))
    assert "s3cr3t" not in str(settings.redacted())
    assert {settings.redacted()[name] for name in urls} == {"https://prometheus.example:9090/prefix"}
    assert Settings(base_model="a@b").redacted()["base_model"] == "a@b"


def test_no_log_line_shows_a_password() -> None:
    record = logging.LogRecord("opportune.x", logging.INFO, "f.py", 1, "asked %s", (SECRET,), None)
    record.__dict__.update(url=SECRET, nested={"deep": [SECRET]}, quoted='https://a:s3cr3t"@host')
    try:
        raise ValueError(SECRET)
    except ValueError as exc:
        record.exc_info = (ValueError, exc, exc.__traceback__)
    line = JsonFormatter().format(record)
    event = json.loads(line)
    assert "s3cr3t" not in line.replace('s3cr3t@prometheus.example:9090/prefix\\"\\n', "")
    assert event["message"] == "asked https://prometheus.example:9090/prefix"
    assert event["quoted"] == "https://host"


def test_a_decision_without_metrics_shows_no_password() -> None:
    failure = MetricsUnavailableError(SECRET, f"no way to {SECRET}")
    context = DecisionContext(settings=Settings(), now_s=600.0, slot_s=600.0, trace_id="0" * 32)
    decision = decide(failure, context, live_policy("periodic", 15))
    assert "prometheus.example:9090" in decision.reason
    assert b"s3cr3t" not in msgspec.json.encode(decision)


def test_a_message_that_differs_is_told_apart_without_its_password(a_decision) -> None:
    decision = a_decision(Action.RETRAIN_AWS, service="qa", job_id="qa-1")
    job = training_job(Settings(base_model=SECRET), decision, "aws", "base")
    told = difference(Settings(base_model=SECRET.replace("9090", "9091")), decision, job)
    assert told is not None and "example:9090" in told and "example:9091" in told
    assert "s3cr3t" not in told
