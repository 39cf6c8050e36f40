"""The real process: starts, serves, is scraped, swaps, stops cleanly; wrong input is one line and exit code 2."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.errors import ConfigurationError
from training_containers.serve.main import find_model, parse_arguments

COMMAND = [sys.executable, "-m", "training_containers", "serve", "--host", "127.0.0.1"]
Json = dict[str, Any]


class Process:
    """A serving process on a free port."""

    def __init__(self, log: Path, *options: str, **env: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        self.process = subprocess.Popen(
            [*COMMAND, "--port", str(self.port), *options],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            env=os.environ | {"OPPORTUNE_ADMIN_TOKEN": "s3cret"} | env,
        )

    def call(self, method: str, path: str, body: Json | None = None, /, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            reply = connection.getresponse()
            raw = reply.read()
        finally:
            connection.close()
        return reply.status, json.loads(raw) if reply.headers.get_content_type() == "application/json" else raw.decode()

    def ready(self) -> Process:
        until = time.monotonic() + 30
        while True:
            try:
                if self.call("GET", "/healthz")[0] == 200:
                    return self
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def begin(*options: str, **env: str) -> Process:
        made.append(Process(tmp_path / f"log{len(made)}", *options, **env))
        return made[-1]

    yield begin
    for process in made:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()


@pytest.mark.slow
def test_a_process_serves_is_scraped_and_stores_feedback(
    start: Callable[..., Process], model_dir: Path, tmp_path: Path
) -> None:
    process = start(
        "--model", str(model_dir), "--cloud", "azure", "--service", "qa-1", "--feedback-store", f"dir:{tmp_path}/store"
    ).ready()

    status, reply = process.call("POST", "/score", {"question": "who?"})
    assert (status, reply["cloud"], reply["model_version"]) == (200, "azure", "base")
    feedback = {"question": "who?", "answers": ["me"], "prediction": "me"}
    assert process.call("POST", "/feedback", feedback)[0] == 200
    families = {f.name: f for f in text_string_to_metric_families(process.call("GET", "/metrics")[1])}
    labels = {"service": "qa-1", "cloud": "azure", "model_version": "base"}
    assert [(s.labels, s.value) for s in families["llm_accuracy"].samples] == [(labels, 1.0)]
    assert families["llm_requests"].samples[0].labels == labels | {"status": "200"}

    assert process.stop() == 0
    (shard,) = (tmp_path / "store/feedback/azure").iterdir()
    assert json.loads(shard.read_text())["answers"] == ["me"]
    events = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert {e["action"] for e in events} >= {"listen", "load", "predict", "feedback", "stop"}


@pytest.mark.slow
def test_a_terminated_process_finishes_what_it_took(
    start: Callable[..., Process], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    # large enough that six requests, one at a time, take a while
    model = make_model(tmp_path / "m", layers=6, width=256)
    process = start("--model", str(model), "--max-batch", "1").ready()
    replies: list[int] = []
    question = {"question": "a", "max_new_tokens": 60}
    patient = {"X-Opportune-Timeout": "60"}
    clients = [
        threading.Thread(target=lambda: replies.append(process.call("POST", "/predict", question, **patient)[0]))
        for _ in range(6)
    ]
    for client in clients:
        client.start()
    until = time.monotonic() + 10
    while "llm_queue_depth" not in (page := process.call("GET", "/metrics")[1]) or _depth(page) < 2:
        assert time.monotonic() < until

    code = process.stop()
    for client in clients:
        client.join()

    assert (code, replies) == (0, [200] * 6)
    with pytest.raises(OSError):
        process.call("GET", "/healthz")


@pytest.mark.slow
def test_versions_swap_under_http_load_without_a_failed_or_wrong_answer(
    start: Callable[..., Process], versions: dict[str, Path]
) -> None:
    admin = {"X-Opportune-Admin": "s3cret"}
    process = start("--model", str(versions["m1"])).ready()
    question = {"question": "who wrote hamlet?"}
    expected = {"m1": process.call("POST", "/predict", question)[1]["answer"]}
    stop, seen, problems = threading.Event(), [], []

    def client() -> None:
        while not stop.is_set():
            try:
                status, reply = process.call("POST", "/predict", question)
            except (OSError, http.client.HTTPException) as exc:
                problems.append(exc)
                continue
            seen.append((reply.get("model_version"), reply.get("answer")))
            if status != 200:
                problems.append(reply)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for swap in range(50):
        version = f"m{(swap + 1) % 3 + 1}"
        process.call("PUT", f"/models/{version}", {"artifact": str(versions[version]), "activate": True}, **admin)
        until = time.monotonic() + 20
        while process.call("GET", "/models", **admin)[1]["active"] != version:
            assert time.monotonic() < until
        expected.setdefault(version, process.call("POST", "/predict", question)[1]["answer"])
    stop.set()
    for thread in clients:
        thread.join()

    assert problems == []
    assert len(set(expected.values())) == 3
    assert {pair[0] for pair in seen} == {"m1", "m2", "m3"}
    assert all(expected[version] == answer for version, answer in seen)


@pytest.mark.slow
def test_two_processes_that_share_a_metrics_folder_answer_for_each_other(
    start: Callable[..., Process], model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "prom").mkdir()
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "prom")}
    one, two = [start("--model", str(model_dir), **shared) for _ in range(2)]
    for process, prediction in ((one.ready(), "me"), (two.ready(), "you")):
        process.call("POST", "/predict", {"question": "who?"})
        process.call("POST", "/feedback", {"question": "who?", "answers": ["me"], "prediction": prediction})
        process.call("GET", "/metrics")

    page = one.call("GET", "/metrics")[1]

    def values(name: str) -> list[float]:
        return [s.value for f in text_string_to_metric_families(page) for s in f.samples if s.name == name]

    assert values("llm_requests_total") == [2.0]
    assert values("llm_accuracy") == [0.5]
    assert two.stop() == 0
    page = one.call("GET", "/metrics")[1]
    assert values("llm_accuracy") == [1.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--model", "{model}", "--port", "http"], "argument --port: invalid int value: 'http'"),
        (["--model", "{model}", "--port", "99999"], "--port is '127.0.0.1:99999'"),
        (["--model", "{model}", "--cloud", "gcp"], "--cloud is 'gcp'; allowed: aws, azure"),
        (["--model", "{model}", "--threads", "0"], "--threads is '0'; allowed: a number >= 1"),
        (["--model", "{model}", "--feedback-store", "x"], "--feedback-store is 'x'; allowed: dir:PATH"),
        (["--modle", "{model}"], "unrecognized arguments: --modle"),
        (["--model", "{model}/model.safetensors"], "not a usable model archive"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(model_dir: Path, options: list[str], says: str) -> None:
    options = [o.format(model=model_dir) for o in options]
    if "--port" not in options:
        options += ["--port", "0"]

    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, env=_offline())

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("opportune serve: ")
    assert says in done.stderr


def test_a_taken_port_is_one_line_and_exit_code_2(model_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--model", str(model_dir), "--port", port], capture_output=True, text=True, timeout=60
        )

    assert done.returncode == 2
    assert (
        done.stderr == f"opportune serve: --port is '127.0.0.1:{port}'; allowed: a free port (address already in use)\n"
    )


# --- what the providers imply


def test_azure_ml_implies_its_port_folder_and_cloud() -> None:
    options, settings = parse_arguments([], {"AZUREML_MODEL_DIR": "/models/qa/3"})

    assert (options.model, options.port, options.cloud, settings.cloud) == ("/models/qa/3", 5001, "azure", "azure")


def test_sagemaker_implies_its_port() -> None:
    assert parse_arguments(["--model", "m"], {})[0].port == 8080
    assert parse_arguments(["--model", "m"], {"SAGEMAKER_BIND_TO_PORT": "9001"})[0].port == 9001
    with pytest.raises(ConfigurationError, match="SAGEMAKER_BIND_TO_PORT is 'x'"):
        parse_arguments(["--model", "m"], {"SAGEMAKER_BIND_TO_PORT": "x"})


def test_an_option_beats_its_variable() -> None:
    env = {"OPPORTUNE_SERVE_THREADS": "3", "OPPORTUNE_SERVE_MODEL": "m", "OPPORTUNE_SERVICE": "qa-2"}

    assert parse_arguments([], env)[0].threads == 3
    assert parse_arguments(["--threads", "5"], env)[0].threads == 5
    assert parse_arguments([], env)[0].service == "qa-2"


def test_the_model_may_be_one_or_two_folders_down(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "qa" / "3").mkdir(parents=True)
    (tmp_path / "qa" / "3" / "model").symlink_to(model_dir)

    assert find_model(str(tmp_path / "qa")) == tmp_path / "qa" / "3" / "model"


def _depth(page: str) -> float:
    return next(s.value for f in text_string_to_metric_families(page) for s in f.samples if s.name == "llm_queue_depth")


def _offline() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1"}
