"""The Lambda functions on events of the shapes that AWS sends."""

import base64
import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from functions import bootstrap
from functions.aws import http, retrain, schedule, training_events
from functions.scheduling.tick import tick
from shared.contracts import JobStatus
from shared.errors import ContractError, UnavailableError

EVENTS = Path(__file__).parent / "events"
CONTEXT = SimpleNamespace(
    function_name="opportune-dev-schedule",
    function_version="$LATEST",
    memory_limit_in_mb=256,
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:opportune-dev-schedule",
    aws_request_id="52fdfc07-2182-154f-163f-5f0f9a621d72",
    get_remaining_time_in_millis=lambda: 30_000,
)
JOB = "qa-20270115t080000"


def event(name):
    return json.loads((EVENTS / f"{name}.json").read_text())


def batch(*bodies):
    record = event("sqs_record")
    return {"Records": [copy.deepcopy(record) | {"body": body, "messageId": f"m{n}"} for n, body in enumerate(bodies)]}


@pytest.fixture
def aws(world, now, monkeypatch):
    """The handlers of a process whose dependencies are the world's, at one moment."""
    for module in (schedule, retrain, training_events):
        monkeypatch.setattr(module, "deps", world.deps)
        monkeypatch.setattr(module.time, "time", lambda: now)
    return world


def test_a_scheduled_event_is_one_tick(aws):
    assert schedule.handler(event("schedule"), CONTEXT) == {
        "action": "retrain_aws",
        "decision_id": f"decision-{JOB}",
        "job_id": JOB,
    }
    assert len(aws.queue().messages) == 1


def test_a_batch_starts_its_jobs_and_keeps_a_malformed_message(aws, job):
    answer = retrain.handler(batch(aws.message(), "{oops"), CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert len(aws.training().started) == 1
    assert aws.queue().dead[0][0] == "{oops"


def test_only_the_messages_that_failed_come_back(aws, job):
    real = aws.training().start

    def start(job, data_uri, parent_uri):
        if job.job_id == "bad-1":
            raise UnavailableError("SageMaker", "ThrottlingException")
        real(job, data_uri, parent_uri)

    aws.clouds["aws"].training.start = start
    bodies = [aws.message(service=name, job_id=f"{name}-1") for name in ("good", "bad", "fine")]
    assert retrain.handler(batch(*bodies), CONTEXT) == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert [j.job_id for j, _, _ in aws.training().started] == ["good-1", "fine-1"]


def test_a_batch_that_fails_as_a_whole_is_reported_message_by_message(aws, job):
    def start(*_):
        raise UnavailableError("SageMaker", "ThrottlingException")

    aws.clouds["aws"].training.start = start
    answer = retrain.handler(batch(aws.message()), CONTEXT)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def test_a_completion_event_brings_the_model_live(aws, job, artifact):
    retrain.handler(batch(aws.message()), CONTEXT)
    aws.training().finish(JOB, artifact=artifact(JOB))
    answer = training_events.handler(event("training_completed"), CONTEXT)
    assert answer == {"job_id": JOB, "status": "live"}
    assert aws.state().job(JOB).record.status is JobStatus.LIVE


def test_an_event_without_a_job_fails_loudly(aws):
    with pytest.raises(ContractError, match="TrainingJobName"):
        training_events.handler({"detail": {}}, CONTEXT)


@pytest.fixture
def web(world, now, monkeypatch):
    """The HTTP function over the world's route table; its endpoints do not exist."""
    tick(world.deps(), now)
    monkeypatch.setattr(bootstrap, "settings", lambda cloud: world.deps(request_timeout_seconds=0.5).settings)
    monkeypatch.setattr(bootstrap, "cloud_services", lambda cloud, cfg: world.clouds[cloud])
    for url, cloud in (("http://127.0.0.1:9", "aws"), ("http://127.0.0.1:9/azure", "azure")):
        world.host(cloud).url = url
    tick(world.deps(), now + 60)
    bootstrap.forget()
    yield world
    bootstrap.forget()


def test_an_http_event_of_either_encoding_is_answered_in_json(web):
    request = event("http_v2")
    for encoded in (False, True):
        if encoded:
            request |= {"body": base64.b64encode(b'{"question": 1}').decode(), "isBase64Encoded": True}
        answer = http.handler(request, CONTEXT)
        assert answer["statusCode"] == (400 if encoded else 503)
        assert answer["headers"]["Content-Type"] == "application/json"
        assert json.loads(answer["body"])["error"]


def test_other_routes_through_the_gateway(web):
    request = event("http_v2") | {"rawPath": "/nothing"}
    request["requestContext"]["http"] |= {"method": "GET", "path": "/nothing"}
    assert http.handler(request, CONTEXT)["statusCode"] == 404


@pytest.mark.parametrize(("path", "status"), [("/prod/healthz", 200), ("/prod", 404), ("/production/healthz", 404)])
def test_a_stage_with_a_name_is_no_part_of_the_apps_addresses(web, path, status):
    request = event("http_v2") | {"rawPath": path, "body": ""}
    request["requestContext"]["stage"] = "prod"
    request["requestContext"]["http"] |= {"method": "GET", "path": path}
    assert http.handler(request, CONTEXT)["statusCode"] == status


def test_one_log_line_is_one_json_object_with_the_trace(aws, job):
    """In a process of its own, since powertools binds standard output at import."""
    program = (
        "import logging\n"
        "from functions.aws.powertools import logger\n"
        "logging.getLogger('opportune.functions.tick').info('decided', extra={'action': 'decide', 'trace_id': 'abc'})\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    (line,) = out.splitlines()
    told = json.loads(line)
    assert (told["message"], told["action"], told["trace_id"]) == ("decided", "decide", "abc")


def test_importing_the_handlers_loads_no_sdk_of_either_cloud():
    program = (
        "import functions.aws.schedule, functions.aws.retrain, functions.aws.http, sys\n"
        "heavy = ('boto3', 'botocore.session', 'aws_xray_sdk', 'torch', 'transformers', 'onnxruntime')\n"
        "print([m for m in sys.modules if m in heavy or m.startswith('azure.')])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    ).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(("disabled", "traces"), [("false", True), ("true", False)])
def test_tracing_is_on_in_lambda_unless_it_is_switched_off(disabled, traces):
    program = (
        "import sys, functions.aws.http as f\n"
        "print('aws_xray_sdk' in sys.modules, f.handler.__module__, callable(f.handler))\n"
    )
    env = {
        **os.environ,
        "LAMBDA_TASK_ROOT": "/var/task",
        "POWERTOOLS_TRACE_DISABLED": disabled,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout
    assert out.split()[0] == str(traces)
