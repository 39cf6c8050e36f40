"""The Azure functions on the objects that the Functions worker hands them."""

import datetime as dt
import importlib.util
import json
from pathlib import Path

import azure.functions as func
import pytest

from functions import bootstrap
from functions.azure import http
from functions.azure import retrain as queue
from functions.azure import schedule as timer
from functions.azure import training_events as eventgrid
from functions.scheduling.tick import tick
from shared.contracts import JobStatus, encode
from shared.errors import ContractError

JOB = "qa-20270115t080000"


def indexed():
    """The app's functions by name; an app can be indexed once, so each time it is a fresh one."""
    path = Path(bootstrap.__file__).parents[1] / "function_app.py"
    spec = importlib.util.spec_from_file_location("function_app_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {f.get_function_name(): f for f in module.app.get_functions()}


FUNCTIONS = indexed()


def user_function(name):
    return FUNCTIONS[name].get_user_function()


@pytest.fixture
def azure(world, now, monkeypatch):
    for module in (timer, queue, eventgrid):
        monkeypatch.setattr(module, "deps", lambda cloud: world.deps(cloud, scheduler="azure"))
        monkeypatch.setattr(module.time, "time", lambda: now)
    world.settings = world.deps(price_usd_per_hour_azure=0.1).settings
    return world


def test_the_app_has_exactly_the_four_functions_and_their_bindings():
    found = {name: f.get_dict_repr()["bindings"] for name, f in FUNCTIONS.items()}
    assert {name: bindings[0]["type"] for name, bindings in found.items()} == {
        "schedule": "timerTrigger",
        "retrain": "queueTrigger",
        "training-events": "eventGridTrigger",
        "http": "httpTrigger",
    }
    assert found["schedule"][0]["schedule"] == "%OPPORTUNE_SCHEDULE%"
    assert found["retrain"][0]["queueName"] == "%OPPORTUNE_QUEUE%"
    methods = [str(getattr(method, "value", method)) for method in found["http"][0]["methods"]]
    assert {"GET", "HEAD", "POST"} <= set(methods)


def test_the_timer_ticks_and_the_queue_starts_the_job(azure, artifact):
    user_function("schedule")(func.timer.TimerRequest(past_due=False))
    (message,) = azure.queue("azure").messages
    user_function("retrain")(func.queue.QueueMessage(id="1", body=message.encode(), dequeue_count=1))
    assert azure.state("azure").job(JOB).record.status is JobStatus.TRAINING
    azure.training("azure").finish(JOB, artifact=artifact(JOB))
    user_function("training-events")(completed(JOB))
    assert azure.state("azure").job(JOB).record.status is JobStatus.LIVE


def completed(job_id):
    data = {
        "experimentId": "00000000-0000-0000-0000-000000000000",
        "experimentName": "opportune-qa",
        "runId": job_id,
        "runType": "azureml.commandjob",
        "runTags": {},
        "runProperties": {},
    }
    return func.EventGridEvent(
        id="1",
        data=data if job_id else {},
        topic="/subscriptions/s/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws",
        subject=f"experiments/opportune-qa/runs/{job_id}",
        event_type="Microsoft.MachineLearningServices.RunCompleted",
        event_time=dt.datetime(2027, 1, 15, 8, 20, tzinfo=dt.UTC),
        data_version="1.0",
    )


def test_an_event_without_a_run_fails_loudly(azure):
    with pytest.raises(ContractError, match="runId"):
        user_function("training-events")(completed(""))


@pytest.mark.parametrize("body", [b"{oops", b"\xff\xfe", encode])
def test_a_malformed_message_is_poisoned_with_its_reason_not_retried(azure, job, body):
    raw = azure.message("aws").encode() if callable(body) else body
    user_function("retrain")(func.queue.QueueMessage(id="1", body=raw))
    assert azure.queue("azure").dead[0][1]


@pytest.fixture
def ask(world, now, monkeypatch):
    """Sends a request through the HTTP function; no endpoint answers."""
    for cloud in ("aws", "azure"):
        world.host(cloud).url = f"http://127.0.0.1:9/{cloud}"
    tick(world.deps(), now)
    monkeypatch.setattr(
        bootstrap, "settings", lambda cloud: world.deps(cloud, request_timeout_seconds=0.5, open_records=True).settings
    )
    monkeypatch.setattr(bootstrap, "cloud_services", lambda cloud, cfg: world.clouds[cloud])
    bootstrap.forget()
    http.middleware.cache_clear()

    def send(method, path, body=None):
        raw = json.dumps(body).encode() if body is not None else b""
        request = func.HttpRequest(
            method, f"http://app.example{path}", headers={"Content-Type": "application/json"}, body=raw
        )
        answer = user_function("http")(request, None)
        return answer.status_code, json.loads(answer.get_body()), answer.headers

    yield send
    bootstrap.forget()
    http.middleware.cache_clear()


def test_requests_reach_the_flask_app(ask):
    assert ask("GET", "/healthz")[1]["cloud"] == "azure"
    assert ask("GET", "/decisions")[1]["decisions"]
    assert ask("POST", "/predict", {"question": 1})[0] == 400
    assert ask("GET", "/nothing")[0] == 404


def test_a_503_keeps_its_body_and_retry_after(ask):
    status, body, headers = ask("POST", "/predict", {"question": "why?"})
    assert status == 503
    assert "no endpoint answered" in body["error"]
    assert headers["Retry-After"] == "1"


def test_one_line_on_wsgi_errors_does_not_break_later_requests(ask):
    http.middleware()._wsgi_error_buffer.write("something complained\n")
    assert ask("GET", "/healthz")[0] == 200
    assert ask("GET", "/healthz")[0] == 200


def test_the_inner_names_of_the_library_that_are_used_are_still_there():
    assert callable(func.WsgiMiddleware._handle_errors)
    assert hasattr(func.WsgiMiddleware(lambda *_: []), "_wsgi_error_buffer")
