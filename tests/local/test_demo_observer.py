"""The observer against a real HTTP server: what it keeps, and that trouble is said and survived."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from local.observer import Observer
from shared.contracts import Action, Decision, JobRecord
from shared.errors import UnavailableError


def decision(n: int, service: str = "qa") -> Decision:
    return Decision(
        decision_id=f"decision-{service}-{n:03d}", service=service, slot_s=float(n), decided_by="aws", mode="act",
        action=Action.HOLD, wanted=Action.HOLD, probabilities=(1.0, 0.0, 0.0), guardrails=(), observation={},
        attributions={}, policy="p", policy_sha256="", trace_id="0" * 32, reason="steady",
    )  # fmt: skip


@contextmanager
def door(reply: dict[str, Any], paths: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(int(reply.get("status", 200)))
            self.end_headers()
            self.wfile.write(json.dumps(msgspec.to_builtins(reply["body"])).encode())

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def no_jobs() -> list[JobRecord]:
    return []


def test_decisions_of_both_doors_are_merged_once_each_and_asked_for_incrementally() -> None:
    reply: dict[str, Any] = {"body": {"decisions": [decision(1), decision(2), decision(1, "other")]}}
    paths: list[str] = []
    with door(reply, paths) as url:
        observer = Observer({"aws": url, "azure": url}, no_jobs, 60.0, "qa")
        observer.poll()
        reply["body"] = {"decisions": [decision(2), decision(3)]}
        observer.poll()
    assert [d.slot_s for d in observer.decisions()] == [1.0, 2.0, 3.0]
    assert "decision-qa-002" in paths[-1] and observer.problem == ""


def test_a_door_that_fails_is_said_and_the_next_poll_recovers() -> None:
    reply: dict[str, Any] = {"status": 500, "body": {"error": "broken"}}
    with door(reply, []) as url:
        observer = Observer({"aws": url}, no_jobs, 60.0, "qa")
        observer.poll()
        assert "HTTP 500" in observer.problem and observer.decisions() == []
        reply |= {"status": 200, "body": {"decisions": [decision(1)]}}
        observer.poll()
    assert observer.problem == "" and len(observer.decisions()) == 1


def test_nobody_listening_and_tables_that_do_not_answer_are_said() -> None:
    def broken() -> list[JobRecord]:
        raise UnavailableError("table", "no route")

    observer = Observer({"aws": "http://127.0.0.1:9"}, broken, 60.0, "qa")
    observer.poll()
    assert "table is unavailable" in observer.problem
    assert observer.jobs() == []
