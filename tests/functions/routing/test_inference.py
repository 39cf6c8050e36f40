import random
import threading

import msgspec
import pytest

from functions.routing.inference import Inference, RouteCache
from functions.routing.router import Router
from shared.contracts import Endpoint, RouteTable
from shared.errors import InvalidInputError, NoEndpointError, UnavailableError, VersionNotLoadedError
from tests.fakes import MemoryInference

TRACE = "b" * 32
TABLE = RouteTable(
    service="qa",
    epoch=3,
    published_s=0.0,
    scheduler="aws",
    heartbeat_s=0.0,
    endpoints=(
        Endpoint(cloud="aws", url="http://aws", model_version="m1", latency_s=0.1),
        Endpoint(cloud="azure", url="http://azure/", model_version="m2", latency_s=0.5),
    ),
    trace_id="0" * 32,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def serve(clock):
    """An Inference whose endpoints answer by a function; exploration is off, so AWS comes first."""

    def make(answer, table=TABLE):
        client = MemoryInference(answer)
        router = Router(clock, random.Random(1), exploration=0.0)
        return Inference(RouteCache(lambda: table, clock, 2.0), router, client, clock), client

    return make


def test_the_answer_says_where_it_comes_from(serve):
    inference, client = serve(lambda *_: {"answer": "42", "model_version": "m9"})
    got = inference.predict({"question": "why?"}, 5.0, TRACE)
    assert got == {"answer": "42", "model_version": "m9", "cloud": "aws", "trace_id": TRACE}
    assert client.calls == ["http://aws/predict"]


def test_an_endpoint_with_one_address_gets_both_kinds_there(serve):
    bodies = []
    only = msgspec.structs.replace(TABLE.endpoints[0], url="sagemaker:opportune-qa")
    table = msgspec.structs.replace(TABLE, endpoints=(only,))
    inference, client = serve(lambda url, body, *_: bodies.append(body) or {}, table)
    inference.predict({"question": "why?", "answers": ["sneaked in"], "max_new_tokens": 3}, 5.0, TRACE)
    inference.feedback({"question": "why?", "answers": ["so"]}, 5.0, TRACE)
    assert client.calls == ["sagemaker:opportune-qa"] * 2
    assert bodies[0] == {"question": "why?", "max_new_tokens": 3}, "a question must not be taken for a label"
    assert bodies[1]["answers"] == ["so"]


def test_trace_and_deadline_travel_with_the_request(serve):
    seen = {}
    inference, _ = serve(lambda url, body, timeout, headers: seen.update(headers, timeout=timeout) or {})
    inference.predict({"question": "why?"}, 5.0, TRACE)
    assert seen["traceparent"].split("-")[1] == TRACE
    assert float(seen["X-Opportune-Timeout"]) == seen["timeout"] == pytest.approx(3.0)


def test_the_other_cloud_answers_when_the_first_fails(serve):
    def answer(url, *_):
        if "aws" in url:
            raise UnavailableError("aws", "HTTP 503")
        return {"answer": "42"}

    inference, client = serve(answer)
    assert inference.predict({"question": "why?"}, 5.0, TRACE)["cloud"] == "azure"
    assert client.calls == ["http://aws/predict", "http://azure/predict"]


def test_after_failures_the_broken_cloud_is_left_alone(serve):
    def answer(url, *_):
        if "aws" in url:
            raise UnavailableError("aws", "HTTP 503")
        return {}

    inference, client = serve(answer)
    for _ in range(20):
        inference.predict({"question": "why?"}, 5.0, TRACE)
    assert client.calls.count("http://aws/predict") <= 3


def test_the_deadline_bounds_all_attempts_together(serve, clock):
    timeouts = []

    def answer(url, body, timeout_s, headers):
        timeouts.append(timeout_s)
        clock.now += timeout_s
        raise UnavailableError(url, "timed out")

    inference, _ = serve(answer)
    with pytest.raises(NoEndpointError, match=r"within 2 s .*aws.*timed out.*azure.*timed out"):
        inference.predict({"question": "why?"}, 2.0, TRACE)
    assert timeouts == [pytest.approx(1.2), pytest.approx(0.8)]
    assert clock.now == pytest.approx(2.0)


def test_no_time_left_means_no_second_attempt(serve, clock):
    def answer(url, body, timeout_s, headers):
        clock.now += 2.0
        raise UnavailableError(url, "hung up late")

    inference, client = serve(answer)
    with pytest.raises(NoEndpointError):
        inference.predict({"question": "why?"}, 2.0, TRACE)
    assert len(client.calls) == 1


def test_a_question_the_endpoint_refuses_is_not_asked_again(serve):
    def answer(*_):
        raise InvalidInputError("the question is empty")

    inference, client = serve(answer)
    with pytest.raises(InvalidInputError, match="empty"):
        inference.predict({"question": " "}, 5.0, TRACE)
    assert len(client.calls) == 1


def test_where_the_named_version_is_not_loaded_the_stable_one_answers_on_the_same_cloud(serve):
    asked = []

    def answer(url, body, *_):
        asked.append((url, body.get("model_version")))
        if "model_version" in body:
            raise VersionNotLoadedError("aws", "HTTP 409")
        return {"answer": "42", "model_version": "m1"}

    inference, _ = serve(answer)
    for _ in range(5):
        got = inference.predict({"question": "why?", "model_version": "m9"}, 5.0, TRACE)
        assert (got["cloud"], got["model_version"]) == ("aws", "m1")
    assert asked[:2] == [("http://aws/predict", "m9"), ("http://aws/predict", None)]
    assert {url for url, _ in asked} == {"http://aws/predict"}, "the cloud is not taken for broken"


def test_an_instance_without_any_version_is_passed_over(serve):
    def answer(url, *_):
        if "aws" in url:
            raise VersionNotLoadedError("aws", "HTTP 409")
        return {}

    inference, client = serve(answer)
    for _ in range(20):
        assert inference.predict({"question": "why?"}, 5.0, TRACE)["cloud"] == "azure"
    assert client.calls.count("http://aws/predict") <= 3, "and counts as broken"


def test_both_attempts_at_a_cloud_share_its_time(serve, clock):
    timeouts = []

    def answer(url, body, timeout_s, headers):
        timeouts.append((url, timeout_s))
        clock.now += 0.5
        raise VersionNotLoadedError(url, "HTTP 409")

    inference, _ = serve(answer)
    with pytest.raises(NoEndpointError, match="HTTP 409"):
        inference.predict({"question": "why?", "model_version": "m9"}, 2.0, TRACE)
    assert [seconds for _, seconds in timeouts] == [pytest.approx(s) for s in (1.2, 0.7, 1.0, 0.5)]


@pytest.mark.parametrize(
    ("body", "field"), [({}, "question"), ({"question": 3}, "question"), ({"question": ""}, "question")]
)
def test_a_wrong_question_names_the_field(serve, body, field):
    inference, client = serve(lambda *_: {})
    with pytest.raises(InvalidInputError, match=field):
        inference.predict(body, 5.0, TRACE)
    assert not client.calls


def test_feedback_goes_to_the_endpoint_that_answered_and_to_the_other_rather_than_nowhere(serve):
    def answer(url, *_):
        if "azure" in url:
            raise UnavailableError("azure", "down")
        return {"bleu1": 1.0}

    inference, client = serve(answer)
    label = {"question": "why?", "answers": ["42"], "cloud": "azure"}
    assert inference.feedback(label, 5.0, TRACE)["cloud"] == "aws"
    assert client.calls == ["http://azure/feedback", "http://aws/feedback"]
    with pytest.raises(InvalidInputError, match="answers"):
        inference.feedback({"question": "why?", "answers": []}, 5.0, TRACE)


def test_the_route_table_is_read_once_per_ttl_and_in_the_background(clock):
    reads, release = [], threading.Event()

    def read():
        reads.append(clock.now)
        if len(reads) > 1:
            release.wait(5)
        return TABLE if len(reads) == 1 else msgspec.structs.replace(TABLE, epoch=4)

    cache = RouteCache(read, clock, 2.0)
    assert cache.table().epoch == cache.table().epoch == 3
    clock.now = 2.5
    assert cache.table().epoch == 3, "the stale table answers while a newer is read"
    release.set()
    _wait_until(lambda: cache.table().epoch == 4)
    assert len(reads) == 2


def test_the_last_route_table_stays_while_no_newer_can_be_read(clock):
    answers = [TABLE, UnavailableError("table", "down"), None, msgspec.structs.replace(TABLE, epoch=1)]
    reads = []

    def read():
        answer = answers[len(reads)]
        reads.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = RouteCache(read, clock, 2.0)
    for number in range(1, len(answers) + 1):
        assert cache.table().epoch == 3
        _wait_until(lambda number=number: len(reads) == number)
        _wait_until(lambda: not cache._refreshing.locked())
        clock.now += 3.0


def test_without_any_routes_the_error_says_who_publishes_them(clock):
    with pytest.raises(NoEndpointError, match="first tick"):
        RouteCache(lambda: None, clock, 2.0).table()


def _wait_until(condition):
    waited = threading.Event()
    for _ in range(500):
        if condition():
            return
        waited.wait(0.01)
    pytest.fail("did not happen")
