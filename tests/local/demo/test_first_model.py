"""The never-retrain baseline: every question once, of the first model and of no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.processes.serving_admin import ServingAdmin

from local.demo.first_model import ask_first_model
from local.demo.scenario import PoolItem

ITEMS = [PoolItem("q1", ("a",), "g"), PoolItem("q2", ("b",), "g"), PoolItem("q1", ("a",), "g")]


def score(prediction: str, answers: tuple[str, ...]) -> tuple[float, float]:
    return float(prediction in answers), float(prediction in answers)


def asked_of(http_server: Callable[..., Any], version: str) -> tuple[dict[str, Any], list[str]]:
    """The scores from a serving process that answers "a" with `version`, and what was asked of it."""
    asked: list[str] = []

    def answer(request: Any) -> tuple[int, bytes]:
        asked.append(f"{request.method} {request.path}")
        if request.method == "GET":
            return 200, json.dumps({"models": [{"version": "base", "state": "ready", "reason": ""}]}).encode()
        return 200, json.dumps({"answer": "a", "model_version": version}).encode()

    with http_server(answer) as url:
        return ask_first_model(ServingAdmin(url, "secret"), Path("model"), ITEMS, score), asked


def test_each_question_is_asked_once_after_the_first_model_was_loaded(http_server: Callable[..., Any]) -> None:
    scores, asked = asked_of(http_server, "base")
    assert scores == {"q1": (1.0, 1.0), "q2": (0.0, 0.0)}
    assert asked[0] == "PUT /models/base" and asked[2] == "POST /models/base/activate"
    assert asked.count("POST /predict") == 2


def test_answers_of_another_model_are_no_baseline(http_server: Callable[..., Any]) -> None:
    assert asked_of(http_server, "m1")[0] == {}


def test_a_serving_process_that_is_gone_leaves_the_run_without_a_baseline() -> None:
    assert ask_first_model(ServingAdmin("http://127.0.0.1:9", "x"), Path("model"), ITEMS, score) == {}
