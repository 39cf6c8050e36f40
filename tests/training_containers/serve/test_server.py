"""What waitress refuses by itself is JSON too, and stopping waits for half-sent requests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from flask import Flask, jsonify, request

from training_containers.serve.server import Server, bind


@pytest.fixture
def server() -> Iterator[Server]:
    app = Flask("echo")

    @app.post("/echo")
    def echo() -> object:
        return jsonify(got=len(request.get_data()))

    made = Server(app, bind("127.0.0.1", 0), threads=2, drain_s=5)
    running = threading.Thread(target=made.run)
    running.start()
    yield made
    made.stop()
    running.join(20)
    assert not running.is_alive()


def _exchange(server: Server, *parts: bytes, between: object = None) -> tuple[bytes, bytes]:
    """(head, body) of the answer to a request sent in parts; `between` is called before the last one."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for i, part in enumerate(parts):
            if i == len(parts) - 1 and callable(between):
                between()
            connection.sendall(part)
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    return head, body


def test_malformed_http_is_refused_in_json(server: Server) -> None:
    head, body = _exchange(
        server, b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: many\r\n\r\n"
    )

    assert head.startswith(b"HTTP/1.1 400")
    assert "Bad Request" in json.loads(body)["error"]


def test_an_enormous_body_is_refused_before_it_is_read(server: Server) -> None:
    head, body = _exchange(
        server, b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n"
    )

    assert head.startswith(b"HTTP/1.1 413")
    assert json.loads(body)["error"]


def test_a_request_half_received_at_the_stop_is_answered_and_the_connection_closed(server: Server) -> None:
    head, body = _exchange(
        server, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab", b"cd", between=server.stop
    )

    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head.lower()
    assert json.loads(body) == {"got": 4}
