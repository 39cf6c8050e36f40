"""The never-retrain baseline: every question once, of the first model and of no other."""

from __future__ import annotations

import io
import json
from typing import Any

from botocore.exceptions import ClientError  # noqa: TID251 - what a client of the runtime raises

from local.demo.first_model import ask_first_model
from local.demo.scenario import PoolItem
from shared.errors import UnavailableError

ITEMS = [PoolItem("q1", ("a",), "g"), PoolItem("q2", ("b",), "g"), PoolItem("q1", ("a",), "g")]


def score(prediction: str, answers: tuple[str, ...]) -> tuple[float, float]:
    return float(prediction in answers), float(prediction in answers)


class Runtime:
    """An endpoint that answers "a" with one version."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.asked: list[Any] = []

    def release(self) -> None:
        self.asked.append("released")

    def invoke_endpoint(self, *, EndpointName: str, ContentType: str, Body: bytes) -> dict[str, Any]:
        self.asked.append((EndpointName, json.loads(Body)))
        if self.version == "gone":
            raise ClientError({"Error": {"Code": "ModelError"}}, "InvokeEndpoint")
        return {"Body": io.BytesIO(json.dumps({"answer": "a", "model_version": self.version}).encode())}


def test_each_question_is_asked_once_after_the_first_model_was_released() -> None:
    runtime = Runtime("m0")
    scores = ask_first_model(runtime.release, runtime, "qa", "m0", ITEMS, score)
    assert scores == {"q1": (1.0, 1.0), "q2": (0.0, 0.0)}
    first, *asked = runtime.asked
    assert first == "released"
    assert sorted(question["question"] for _, question in asked) == ["q1", "q2"]
    assert all(body["model_version"] == "m0" and endpoint == "qa" for endpoint, body in asked)


def test_answers_of_another_model_and_an_endpoint_that_is_gone_are_no_baseline() -> None:
    for version in ("m1", "gone"):
        runtime = Runtime(version)
        assert ask_first_model(runtime.release, runtime, "qa", "m0", ITEMS, score) == {}


def test_a_release_that_fails_leaves_the_run_without_a_baseline() -> None:
    def release() -> None:
        raise UnavailableError("the store", "refused")

    assert ask_first_model(release, Runtime("m0"), "qa", "m0", ITEMS, score) == {}
