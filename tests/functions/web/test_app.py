import functools
import random
import time

import pytest

from functions.routing.inference import Inference, RouteCache
from functions.routing.router import Router
from functions.scheduling.tick import tick
from functions.web.app import create_app
from functions.web.control_metrics import control_metrics
from shared.errors import UnavailableError
from tests.fakes import MemoryInference


@pytest.fixture
def endpoints():
    """What the endpoints do; a test replaces it."""
    return {"answer": lambda url, body, timeout_s, headers: {"answer": "42", "model_version": "m1"}}


@pytest.fixture
def browse(world, now, endpoints):
    """A client of the app of a service that ticked once, under the settings given."""
    tick(world.deps(), now)

    def make(**settings):
        state = world.state()
        routes = RouteCache(lambda: state.routes("qa"), time.monotonic, 2.0)
        client = MemoryInference(lambda *request: endpoints["answer"](*request))
        inference = Inference(routes, Router(time.monotonic, random.Random(1)), client)
        chosen = world.deps(max_body_bytes=2000, **settings).settings
        page = functools.partial(control_metrics, world.deps())
        return create_app(chosen, state, inference, page, lambda: now + 30).test_client()

    return make


@pytest.fixture
def browser(browse):
    return browse(open_records=True)


def test_a_question_is_answered_with_cloud_version_and_trace(browser):
    trace = "c" * 32
    answer = browser.post("/predict", json={"question": "why?"}, headers={"traceparent": f"00-{trace}-{'d' * 16}-01"})
    assert answer.status_code == 200
    assert answer.json["answer"] == "42"
    assert answer.json["cloud"] in ("aws", "azure")
    assert (answer.json["model_version"], answer.json["trace_id"]) == ("m1", trace)


def test_a_wrong_traceparent_gets_a_trace_of_our_own(browser):
    answer = browser.post("/predict", json={"question": "why?"}, headers={"traceparent": "zz"})
    assert len(answer.json["trace_id"]) == 32


@pytest.mark.parametrize(
    ("path", "body", "field", "words"),
    [
        ("/predict", "{", None, "not JSON"),
        ("/predict", "[]", None, "JSON object"),
        ("/predict", "{}", "question", "question"),
        ("/predict", '{"question": 7}', "question", "Expected `str`"),
        ("/predict", b"\xff\xfe", None, "not JSON"),
        ("/feedback", '{"question": "q"}', "answers", "answers"),
        ("/feedback", '{"question": "q", "answers": ["a"], "cloud": "gcp"}', "cloud", "gcp"),
    ],
)
def test_a_malformed_body_is_a_400_that_names_the_field(browser, path, body, field, words):
    answer = browser.post(path, data=body)
    assert answer.status_code == 400
    assert words in answer.json["error"]
    assert answer.json.get("field") == field


def test_a_body_over_the_limit_is_a_413_in_json(browser):
    answer = browser.post("/predict", json={"question": "x" * 3000})
    assert answer.status_code == 413
    assert "limit of 2000" in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("get", "/nothing", 404), ("get", "/predict", 405), ("get", "/decisions/none", 404), ("delete", "/routes", 405)],
)
def test_every_error_is_json(browser, method, path, status):
    answer = getattr(browser, method)(path)
    assert answer.status_code == status
    assert answer.mimetype == "application/json"
    assert answer.json["error"]
    assert status != 405 or answer.headers["Allow"]


def test_no_endpoint_is_a_503_with_retry_after(browser, endpoints):
    def down(url, *_):
        raise UnavailableError(url, "connection refused")

    endpoints["answer"] = down
    answer = browser.post("/predict", json={"question": "why?"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "connection refused" in answer.json["error"]


def test_a_bug_is_a_500_in_json_without_its_insides(browser, endpoints):
    def bug(*_):
        raise ZeroDivisionError("secret detail")

    endpoints["answer"] = bug
    browser.application.config["PROPAGATE_EXCEPTIONS"] = False
    answer = browser.post("/predict", json={"question": "why?"})
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json["trace_id"]


@pytest.mark.parametrize(
    "body", [b"[" * 1_500, b'{"question": ' + b"[" * 1_500, b'{"question": ' + b"9" * 1_900 + b"}", b"\xff", b"{oops"]
)
def test_a_body_that_no_reader_can_take_is_a_400(browser, body):
    for route in ("/predict", "/feedback"):
        answer = browser.post(route, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert answer.json["error"]


def test_an_id_longer_than_any_is_not_there(browser):
    assert browser.get(f"/decisions/{'x' * 2000}").status_code == 404


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "٣"])
def test_a_wrong_deadline_is_a_400(browser, value):
    answer = browser.post("/predict", json={"question": "q"}, headers={"X-Opportune-Deadline-Ms": value.encode()})
    assert answer.status_code == 400
    assert "X-Opportune-Deadline-Ms" in answer.json["error"]


def test_the_callers_deadline_reaches_the_endpoint(browser, endpoints):
    seen = []
    endpoints["answer"] = lambda url, body, timeout_s, headers: seen.append(timeout_s) or {}
    browser.post("/predict", json={"question": "q"}, headers={"X-Opportune-Deadline-Ms": "500"})
    assert 0.2 < seen[0] <= 0.3


def test_routes_and_decisions_can_be_read(browser, now):
    assert {e["cloud"] for e in browser.get("/routes").json["endpoints"]} == {"aws", "azure"}
    (decision,) = browser.get("/decisions").json["decisions"]
    assert browser.get(f"/decisions/{decision['decision_id']}").json == decision
    assert browser.get(f"/decisions?since={now}").json["decisions"] == [decision]
    assert browser.get(f"/decisions?since={now + 60}").json["decisions"] == []
    assert browser.get("/decisions?since=2027-01-15T08:00:01Z").json["decisions"] == []
    assert browser.get("/decisions?since=2027-01-15T08:00:00").json["decisions"] == [decision]


@pytest.mark.parametrize("query", ["since=yesterday", "since=nan", "since=1e99", "limit=0", "limit=x", "limit=2000"])
def test_a_wrong_query_is_a_400(browser, query):
    assert browser.get(f"/decisions?{query}").status_code == 400


def test_healthz_answers_without_any_dependency(browser):
    assert browser.get("/healthz").json == {"status": "ok", "service": "qa", "cloud": "aws"}


RECORDS = ("/routes", "/decisions", "/decisions/decision-qa-20270115t080000", "/jobs", "/metrics")


@pytest.mark.parametrize("path", RECORDS)
def test_records_want_the_operators_token(browse, path):
    browser = browse(operator_token="s3cret", open_records=True)
    for given in (None, "Bearer", "Bearer wrong", "Basic s3cret", "s3cret", "Bearer s3crét"):
        refused = browser.get(path, headers={"Authorization": given} if given else {})
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert "operator's token" in refused.json["error"]
    for given in ("Bearer s3cret", "bearer s3cret"):
        assert browser.get(path, headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize("path", RECORDS)
def test_without_a_token_set_there_are_no_records(browse, path):
    refused = browse().get(path, headers={"Authorization": "Bearer "})
    assert refused.status_code == 404
    assert "OPPORTUNE_OPERATOR_TOKEN" in refused.json["error"]


def test_the_control_planes_metrics_are_prometheus_text(browser, now):
    page = browser.get("/metrics")
    assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert f'llm_decision_slot_timestamp_seconds{{service="qa"}} {now!r}\n' in page.text


def test_users_need_no_token(browse):
    browser = browse(operator_token="s3cret")
    assert browser.post("/predict", json={"question": "why?"}).status_code == 200
    assert browser.post("/feedback", json={"question": "why?", "answers": ["so"]}).status_code == 200
    assert browser.get("/healthz").status_code == 200
