"""The routes: answers, clear errors in JSON, live quality."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.protocol import Answer
from training_containers.model.prompt import prompt_for
from training_containers.object_store import FolderObjects
from training_containers.serve.app import create_app
from training_containers.serve.feedback_store import FeedbackWriter
from training_containers.serve.metrics import ServingMetrics, Snapshot
from training_containers.serve.model_registry import Registry
from training_containers.serve.scores import RollingScores
from training_containers.serve.service import Service

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Served:
    """One wired process without the network."""

    def __init__(self, store: Path, load: Callable[[Path], Any] = OnnxEngine, max_waiting: int = 8) -> None:
        self.draining, self.waits_for = False, ""
        scores = RollingScores(100, 3600)
        self.registry = Registry(load, max_waiting=max_waiting, on_inactive=scores.forget)
        metrics = ServingMetrics(
            "qa",
            "aws",
            lambda: Snapshot(scores.totals(), self.registry.active, self.registry.depth, self.registry.engines()),
        )
        self.writer = FeedbackWriter(FolderObjects(store), "aws", metrics, every_s=3600)
        app = create_app(
            Service(self.registry, scores, metrics, self.writer),
            cloud="aws",
            max_body_bytes=5000,
            draining=lambda: self.draining,
            waits_for=lambda: self.waits_for,
        )
        self.client: FlaskClient = app.test_client()

    def post(self, path: str, body: object, **headers: str) -> Any:
        return self.client.post(path, json=body, headers=headers)

    def samples(self, name: str) -> dict[str, float]:
        """model_version (or "") -> value of a metric without other varying labels."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {
            s.labels.get("model_version", ""): s.value for family in families for s in family.samples if s.name == name
        }


@pytest.fixture
def served(model_dir: Path, tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "store")
    made.registry.load(model_dir, activate=True)
    yield made
    made.writer.close()


def test_the_answer_says_who_gave_it(served: Served, model_dir: Path) -> None:
    reply = served.post("/predict", {"question": "  Who wrote HAMLET? ", "max_new_tokens": 5})

    expected = OnnxEngine(model_dir).generate([prompt_for("Who wrote HAMLET?")], 5)[0].text
    assert reply.status_code == 200
    assert reply.json["answer"] == expected
    assert (reply.json["model_version"], reply.json["cloud"]) == ("base", "aws")
    assert reply.json["latency_s"] > 0
    assert len(reply.json["request_id"]) == 32


@pytest.mark.parametrize("path", ["/invocations", "/score"])
def test_each_clouds_own_route_answers_alike(served: Served, path: str) -> None:
    body = {"question": "what is it?"}

    assert served.post(path, body).json["answer"] == served.post("/predict", body).json["answer"]


@pytest.mark.parametrize(
    ("path", "raw", "field", "says"),
    [
        ("/predict", b"", None, "not JSON"),
        ("/predict", b"{", None, "not JSON"),
        ("/predict", b"[]", None, "Expected `object`"),
        ("/predict", b'{"question": "\xff"}', None, "not UTF-8: byte 14 is 0xff"),
        ("/predict", b'{"question": "\\ud800"}', None, "not JSON"),
        ("/predict", b"{}", "question", "missing"),
        ("/predict", b'{"question": 3}', "question", "Expected `str`"),
        ("/predict", b'{"question": ""}', "question", "length >= 1"),
        ("/predict", b'{"question": " \\n\\t"}', "question", "empty"),
        ("/predict", b'{"question": "a", "max_new_tokens": 0}', "max_new_tokens", ">= 1"),
        ("/predict", b'{"question": "a", "max_new_tokens": 257}', "max_new_tokens", "<= 256"),
        ("/predict", b'{"question": "a", "version": 1}', "version", "Expected `str"),
        ("/predict", json.dumps({"question": "long " * 200}).encode(), "question", "there is room for"),
        ("/feedback", b'{"question": "a"}', "answers", "missing"),
        ("/feedback", b'{"question": "a", "answers": []}', "answers", "length >= 1"),
        ("/feedback", b'{"question": "a", "answers": "blue"}', "answers", "Expected `array`"),
        ("/feedback", b'{"question": "a", "answers": ["x"], "received_s": -1}', "received_s", ">= 0"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(
    served: Served, path: str, raw: bytes, field: str | None, says: str
) -> None:
    reply = served.client.post(path, data=raw)

    assert reply.status_code == 400
    assert says in reply.json["error"]
    assert reply.json.get("field") == field


@pytest.mark.parametrize(
    "question",
    [
        "\x00",
        "🦜🏴‍☠️ ¿qué?",
        "\u202eabc\u202c",
        "e" + "\u0301" * 40,
        "\ufeffwhat",
        "日本語の質問",
        "İstanbul ßß",
        "a\u2028b",
    ],
)
def test_odd_unicode_is_an_answer_not_an_error(served: Served, question: str) -> None:
    reply = served.post("/predict", {"question": question, "max_new_tokens": 3})

    assert reply.status_code == 200
    assert isinstance(reply.json["answer"], str)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"question":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b"[" * 4000,
        b'{"question": "a", "max_new_tokens": 1e999}',
        b'{"question": "a", "max_new_tokens": ' + b"9" * 400 + b"}",
        '{"question": "ä"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"question": "a"}',
    ],
    ids=["deep", "unclosed", "infinite", "digits", "utf-16", "byte order mark"],
)
def test_hostile_bodies_are_a_400(served: Served, raw: bytes) -> None:
    reply = served.client.post("/predict", data=raw)

    assert reply.status_code == 400
    assert reply.json["error"]


def test_refused_prompts_cost_the_engine_nothing(served: Served) -> None:
    for body in ({"question": "long " * 200}, {"question": "   "}):
        assert served.post("/predict", body).status_code == 400

    assert served.registry.depth == 0
    assert "llm_tokens_total{" not in served.client.get("/metrics").text


def test_wrong_routes_methods_and_sizes_are_json_too(served: Served) -> None:
    unknown = served.client.get("/nope")
    method = served.client.get("/predict")
    large = served.client.post("/predict", data=b"x" * 5001)

    assert (unknown.status_code, unknown.json) == (404, {"error": "no route /nope"})
    assert (method.status_code, set(method.headers["Allow"].split(", "))) == (405, {"OPTIONS", "POST"})
    assert method.json["error"]
    assert (large.status_code, large.json) == (413, {"error": "the body is over the limit of 5000 bytes"})


def test_without_a_model_everything_waits(tmp_path: Path) -> None:
    served = Served(tmp_path)

    assert served.client.get("/healthz").status_code == served.client.get("/ping").status_code == 503
    reply = served.post("/predict", {"question": "a"})
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert "reason" not in served.client.get("/ping").json
    served.waits_for = "nothing is released yet"
    assert served.client.get("/ping").json["reason"] == "nothing is released yet"
    assert served.samples("llm_model_active") == {}


def test_health_follows_the_process(served: Served) -> None:
    assert served.client.get("/healthz").json == {"status": "ok", "model_version": "base", "cloud": "aws"}
    assert served.client.get("/ping").status_code == 200

    served.draining = True
    reply = served.client.get("/ping")

    assert (reply.status_code, reply.json["status"]) == (503, "stopping")


@pytest.mark.parametrize("headers", [{"X-Opportune-Trace": TRACE}, {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}])
def test_the_callers_trace_reaches_the_log(
    served: Served, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        reply = served.client.post("/predict", json={"question": "a"}, headers=headers)

    (event,) = [vars(r) for r in caplog.records if vars(r).get("action") == "predict"]
    assert (event["trace_id"], event["request_id"]) == (TRACE, reply.json["request_id"])


def test_feedback_moves_the_gauges_and_reaches_the_store(served: Served, tmp_path: Path) -> None:
    assert served.samples("llm_bleu") == {}

    right = served.post("/feedback", {"question": "q", "answers": ["The  Blue!", "azure"], "prediction": "blue"})
    half = served.post("/feedback", {"question": "q", "answers": ["deep blue"], "prediction": "light blue"})

    assert (right.json["bleu1"], right.json["exact_match"]) == (1.0, 1.0)
    assert (half.json["bleu1"], half.json["exact_match"]) == (0.5, 0.0)
    assert served.samples("llm_bleu") == {"base": pytest.approx((right.json["bleu1"] + 0.5) / 2)}
    assert served.samples("llm_accuracy") == {"base": 0.5}
    assert served.samples("llm_feedback_window_pairs") == {"base": 2}
    assert served.samples("llm_feedback_total") == {"base": 2}
    served.writer.flush()
    (shard,) = (tmp_path / "store").rglob("*.jsonl")
    assert [json.loads(line)["prediction"] for line in shard.read_text().splitlines()] == ["blue", "light blue"]


@pytest.mark.parametrize("path", ["/invocations", "/score"])
def test_a_clouds_only_route_takes_labels_too(served: Served, path: str) -> None:
    label = {"question": "where is the sea?", "answers": ["in the west"], "prediction": "in the west"}
    told = served.post(path, label)
    assert told.status_code == 200
    assert told.json["exact_match"] == 1.0
    wrong = served.post(path, {"question": "where?", "answers": []})
    assert (wrong.status_code, wrong.json["field"]) == (400, "answers")
    assert "answer" in served.post("/predict", label).json, "a question asked as such is answered"


def test_trace_and_deadline_come_through_sagemakers_attributes(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    attributes = f"traceparent=00-{TRACE}-{'b' * 16}-01; X-Opportune-Timeout=soon"
    headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes}
    late = served.client.post("/invocations", json={"question": "where is the sea?"}, headers=headers)
    assert late.status_code == 400
    assert "X-Opportune-Timeout is 'soon'" in late.json["error"]
    headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes.replace("soon", "5")}
    with caplog.at_level(logging.INFO):
        assert served.client.post("/invocations", json={"question": "where?"}, headers=headers).status_code == 200
    assert TRACE in {getattr(record, "trace_id", "") for record in caplog.records}


def test_feedback_without_a_prediction_is_answered_first(served: Served) -> None:
    answer = served.post("/predict", {"question": "who?"}).json["answer"]

    reply = served.post("/feedback", {"question": "who?", "answers": [answer], "received_s": 12.5})

    assert (reply.json["prediction"], reply.json["exact_match"]) == (answer, 1.0)
    assert served.samples("llm_requests_total") == {"base": 1}, "scoring a label is not user traffic"


def test_a_new_version_starts_unknown_and_a_retired_one_disappears(served: Served, versions: dict[str, Path]) -> None:
    pair = {"question": "q", "answers": ["blue"], "prediction": "blue"}
    served.post("/feedback", pair)
    assert served.samples("llm_accuracy") == {"base": 1.0}

    served.registry.load(versions["m1"], activate=True)
    assert served.samples("llm_accuracy") == {}
    assert served.samples("llm_model_active") == {"m1": 1.0}

    served.post("/feedback", pair)
    served.post("/feedback", pair | {"model_version": "base"})
    assert served.samples("llm_accuracy") == {"m1": 1.0}, "a late pair does not revive a replaced version's gauge"
    served.registry.unload("base")
    served.post("/feedback", pair | {"model_version": "base"})
    assert served.samples("llm_accuracy") == {"m1": 1.0}
    served.writer.flush()
    assert served.samples("llm_feedback_stored_total") == {"": 4}, "a late pair still teaches the next model"


def test_a_candidate_beside_the_active_version_and_one_rolled_back_to_are_judged(
    served: Served, versions: dict[str, Path]
) -> None:
    pair = {"question": "q", "answers": ["blue"], "prediction": "blue"}
    served.registry.load(versions["m1"])
    served.post("/feedback", pair | {"model_version": "m1"})
    assert served.samples("llm_accuracy") == {"m1": 1.0}

    served.registry.activate("m1")
    served.registry.activate("base")
    served.post("/feedback", pair | {"model_version": "m1"})
    served.post("/feedback", pair)
    assert served.samples("llm_accuracy") == {"base": 1.0}


def test_requests_latency_tokens_and_errors_are_counted_per_version(served: Served) -> None:
    served.post("/predict", {"question": "a", "max_new_tokens": 7})
    served.post("/predict", {"question": "a", "version": "m9"})
    served.post("/predict", {})

    page = served.client.get("/metrics").text
    assert 'llm_requests_total{cloud="aws",model_version="base",service="qa",status="200"} 1.0' in page
    assert 'llm_requests_total{cloud="aws",model_version="none",service="qa",status="409"} 1.0' in page
    assert 'llm_requests_total{cloud="aws",model_version="none",service="qa",status="400"} 1.0' in page
    assert served.samples("llm_request_latency_seconds_count") == {"base": 1}
    assert 1 <= served.samples("llm_tokens_total")["base"] <= 7
    assert served.samples("llm_queue_depth") == {"": 0}
    assert 0 < served.samples("llm_memory_usage_ratio")[""] < 1


def test_cpu_utilisation_is_unknown_before_an_interval_then_a_ratio(served: Served) -> None:
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        served.post("/predict", {"question": "a"})

    assert 0 < served.samples("llm_cpu_utilisation_ratio")[""] <= 1


# --- a version by name


def test_a_request_may_name_who_answers(served: Served, versions: dict[str, Path]) -> None:
    served.registry.load(versions["m1"])
    question = {"question": "who wrote hamlet?"}
    expected = OnnxEngine(versions["m1"]).generate([prompt_for(question["question"])], 16)[0].text
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": "X-Opportune-Timeout=5; X-Opportune-Version=m1"}

    for path in ("/predict", "/invocations", "/score"):
        asked = [
            served.post(path, question | {"model_version": "m1"}),
            served.post(path, question | {"version": "m1"}),
            served.post(path, question, **{"X-Opportune-Version": "m1"}),
            served.post(path, question, **attributes),
        ]
        assert {(a.json["model_version"], a.json["answer"]) for a in asked} == {("m1", expected)}
        assert served.post(path, question).json["model_version"] == "base"
        assert served.post(path, question, **{"X-Opportune-Version": " "}).json["model_version"] == "base"
        both = served.post(path, question | {"model_version": "base"}, **{"X-Opportune-Version": "m1"})
        assert both.json["model_version"] == "base", "the body says it more exactly"

    label = served.post("/feedback", question | {"answers": ["x"]}, **{"X-Opportune-Version": "m1"})
    assert (label.json["model_version"], label.json["prediction"]) == ("m1", expected)


@pytest.mark.parametrize("path", ["/predict", "/feedback", "/invocations"])
def test_a_version_that_is_not_here_is_a_409(served: Served, path: str) -> None:
    body = {"question": "who?"} | ({"answers": ["x"]} if path == "/feedback" else {})

    for reply in (
        served.post(path, body | {"model_version": "m9"}),
        served.post(path, body, **{"X-Opportune-Version": "m9"}),
    ):
        assert reply.status_code == 409
        assert reply.json["error"] == "model version 'm9' is not loaded here; loaded: base"


def test_there_is_no_way_to_load_or_unload_from_outside(served: Served) -> None:
    for call in (served.client.get, served.client.put, served.client.post, served.client.delete):
        assert call("/models/m1").status_code == 404


# --- load


class Slow:
    """The real engine, slowed until the test lets it go."""

    def __init__(self, model_dir: Path) -> None:
        self.engine = OnnxEngine(model_dir)
        self.gate = threading.Event()
        self.gate.set()
        self.precision, self.agreement = self.engine.precision, self.engine.agreement

    def check(self, prompt: str, max_new_tokens: int) -> None:
        self.engine.check(prompt, max_new_tokens)

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]:
        assert self.gate.wait(20)
        return self.engine.generate(prompts, max_new_tokens)


def test_overload_is_a_429_and_a_missed_deadline_a_504(model_dir: Path, tmp_path: Path) -> None:
    slow = Slow(model_dir)
    served = Served(tmp_path, lambda _folder: slow, max_waiting=1)
    served.registry.load(model_dir, activate=True)
    slow.gate.clear()
    late = {"X-Opportune-Timeout": "0.3"}
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(served.post("/predict", {"question": "a"}, **late).status_code)

    running = threading.Thread(target=ask)
    running.start()
    time.sleep(0.1)
    waiting = threading.Thread(target=ask)
    waiting.start()
    _until(lambda: served.registry.depth == 1)
    assert served.samples("llm_queue_depth") == {"": 1}
    refused = served.post("/predict", {"question": "b"})
    running.join()
    waiting.join()
    slow.gate.set()

    assert statuses == [504, 504]
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    _until(lambda: served.registry.depth == 0)
    assert served.post("/predict", {"question": "a"}).status_code == 200


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "0", "inf"])
def test_a_wrong_deadline_is_a_400(served: Served, given: str) -> None:
    assert served.post("/predict", {"question": "a"}, **{"X-Opportune-Timeout": given}).status_code == 400


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)
