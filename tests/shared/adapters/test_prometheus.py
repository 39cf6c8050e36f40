"""Range queries against the real Prometheus, and what happens when there is none."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from local.supervisor import tool
from shared.adapters.prometheus import PrometheusMetrics
from shared.errors import MetricsUnavailableError

EXPOSED = """# TYPE llm_bleu gauge
llm_bleu{service="qa",cloud="aws",model_version="v1"} 0.75
llm_bleu{service="qa",cloud="azure",model_version="v1"} 0.25
llm_feedback_window_pairs{service="qa",cloud="aws",model_version="v1"} 30
llm_feedback_window_pairs{service="qa",cloud="azure",model_version="v1"} 10
llm_bleu{service="qa",cloud="aws",job_id="qa-1"} 0.99
llm_accuracy{service="qa",cloud="aws",model_version="v1"} 0.5
llm_bleu{service="other",cloud="aws",model_version="v1"} 0.1
"""


class Answer(BaseHTTPRequestHandler):
    status, body = 200, EXPOSED
    seen: dict[str, str]

    def do_GET(self) -> None:
        type(self).seen = dict(self.headers)
        self.send_response(self.status)
        self.send_header("Content-Type", "text/plain" if self.body is EXPOSED else "application/json")
        self.end_headers()
        self.wfile.write(self.body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped a serving container for a few seconds."""
    folder = tmp_path_factory.mktemp("prometheus")
    target = serve(Answer)
    config = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
        "scrape_configs": [
            {"job_name": "serving", "static_configs": [{"targets": [f"127.0.0.1:{target.server_address[1]}"]}]}
        ],
    }
    path = folder / "prometheus.json"
    path.write_text(json.dumps(config))
    port = free_port()
    process = subprocess.Popen(
        [
            str(tool("prometheus")),
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        target.shutdown()


def test_samples_of_this_service_over_the_window(prometheus: str) -> None:
    source = PrometheusMetrics(prometheus, "qa")
    deadline = time.monotonic() + 60
    while True:
        now = time.time()
        try:
            window = source.window(now - 3, now, 0.5)
        except MetricsUnavailableError:
            assert time.monotonic() < deadline, "Prometheus did not start"
            time.sleep(0.3)
            continue
        if len(window.series["bleu"].values) >= 3:
            break
        assert time.monotonic() < deadline, "Prometheus scraped nothing"
        time.sleep(0.3)
    # the mean of every labelled answer in both clouds, without the other service and without a training job's score
    assert set(window.series["bleu"].values) == {0.625}
    assert set(window.series["accuracy"].values) == {0.5}
    assert now - window.series["bleu"].timestamps_s[-1] < 2.0
    assert window.series["cpu"].values == ()  # nobody exports it: empty, not zero


def test_a_month_is_fetched_in_parts(prometheus: str) -> None:
    now = time.time()
    window = PrometheusMetrics(prometheus, "qa").window(now - 30 * 86_400, now, 60)
    assert window.series["cpu"].values == ()


def test_nobody_answers() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MetricsUnavailableError, match=url):
        PrometheusMetrics(url, "qa", timeout_s=1).window(0, 60, 60)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (503, "{}", "503"),
        (401, "no", "401"),
        (200, "<html>", "JSON"),
        (200, '{"status": "success"}', "not a Prometheus answer"),
        (200, '{"data": {"result": [{"values": 3}]}}', "not a Prometheus answer"),
    ],
)
def test_every_bad_answer_is_one_clear_error(status: int, body: str, told: str) -> None:

    class Bad(Answer):
        pass

    Bad.status, Bad.body = status, body
    server = serve(Bad)
    try:
        source = PrometheusMetrics(f"http://127.0.0.1:{server.server_address[1]}", "qa", token="secret-token")
        with pytest.raises(MetricsUnavailableError, match=told) as failure:
            source.window(0, 60, 60)
    finally:
        server.shutdown()
    assert Bad.seen["Authorization"] == "Bearer secret-token"
    assert "secret-token" not in str(failure.value)
