"""The real process: starts, serves, is scraped, swaps, stops cleanly; wrong input is one line and exit code 2."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.errors import ConfigurationError
from tests.training_containers.serve.releasing import Releases, until
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.prompt import MAX_NEW_TOKENS, prompt_for
from training_containers.serve.main import find_model, parse_arguments

TOOLS = Path(__file__).parents[3] / ".tools/bin"
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
            env=os.environ | env,
        )

    def call(self, method: str, path: str, body: Json | None = None, /, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            reply = connection.getresponse()
            raw = reply.read()
        finally:
            connection.close()
        return reply.status, json.loads(raw) if reply.headers.get_content_type() == "application/json" else raw.decode()

    def answers(self, status: int, host: str = "127.0.0.1") -> bool:
        """Whether its health is that."""
        assert self.process.poll() is None, self.log.read_text()
        connection = http.client.HTTPConnection(host, self.port, timeout=20)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == status
        except OSError:
            return False
        finally:
            connection.close()

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


# --- following a release


@pytest.fixture
def releases(tmp_path: Path, versions: dict[str, Path]) -> Releases:
    made = Releases(tmp_path / "store")
    for version, folder in versions.items():
        made.upload(folder, version)
    return made


def _active(process: Process) -> str | None:
    version: str | None = process.call("GET", "/ping")[1]["model_version"]
    return version


def test_a_process_waits_for_its_first_release_and_ends_with_a_last_word(
    start: Callable[..., Process], releases: Releases, tmp_path: Path
) -> None:
    cloud = {"OPPORTUNE_CLOUD": "azure", "OPPORTUNE_SERVICE": "qa", "OPPORTUNE_SERVE_STORE": f"dir:{releases.root}"}
    cloud |= {"OPPORTUNE_SERVE_CACHE": str(tmp_path / "cache"), "OPPORTUNE_SERVE_INSTANCE": "one"}
    process = start(**cloud)
    until(lambda: process.answers(503))
    until(lambda: "nothing is released yet" in process.call("GET", "/ping")[1].get("reason", ""))
    assert process.call("POST", "/predict", {"question": "who?"})[0] == 503

    releases.publish("m1")
    process.ready()
    assert _active(process) == "m1"
    label = {"question": "who?", "answers": ["me"]}
    assert process.call("POST", "/feedback", label)[1]["model_version"] == "m1"
    page = process.call("GET", "/metrics")[1]
    labels = 'cloud="azure",service="qa"'
    assert f"llm_release_revision{{{labels}}} 1.0" in page
    assert 'llm_model_loaded{cloud="azure",model_version="m1",service="qa"} 1.0' in page
    assert 'llm_follow_errors_total{cloud="azure",kind="document",service="qa"}' in page
    until(lambda: releases.status().active == "m1")

    assert process.stop() == 0
    assert releases.status().told_s == 0
    assert list((releases.root / "feedback/azure").iterdir()), "labels go where the release is"
    assert list((tmp_path / "cache/0/versions/m1").iterdir()), "a restart finds it"


def test_a_local_model_serves_until_something_is_released(
    start: Callable[..., Process], releases: Releases, model_dir: Path, tmp_path: Path
) -> None:
    options = ["--store", f"dir:{releases.root}", "--cache", str(tmp_path / "cache"), "--model", str(model_dir)]
    process = start(*options, "--feedback-store", "").ready()
    assert _active(process) == "base"
    assert process.call("POST", "/predict", {"question": "a", "model_version": "m1"})[0] == 409

    releases.publish("m1")
    until(lambda: _active(process) == "m1")
    until(lambda: process.call("POST", "/predict", {"question": "a", "model_version": "base"})[0] == 409)
    process.call("POST", "/feedback", {"question": "a", "answers": ["x"]})
    assert process.stop() == 0
    assert not (releases.root / "feedback").exists()

    again = start(*options).ready()
    assert _active(again) == "m1", "what the document says, not the local model"


def _becomes(process: Process, version: str) -> None:
    until(lambda: _active(process) == version)


@pytest.mark.slow
@pytest.mark.skipif(not (TOOLS / "prometheus").exists(), reason="no prometheus here; see make")
def test_the_metrics_of_a_process_arrive_and_its_agent_ends_with_it(
    start: Callable[..., Process], model_dir: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "prometheus.yml").write_text("global: {}")
    command = [
        str(TOOLS / "prometheus"),
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"]
    store = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told = {"WRITE_URL": f"http://127.0.0.1:{port}/api/v1/write", "SCRAPE_SECONDS": "1"}
    told["AGENT"] = str(TOOLS / "prometheus")
    env = {f"OPPORTUNE_METRICS_{name}": value for name, value in told.items()}

    def found(query: str) -> list[Json]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    try:
        process = start("--model", str(model_dir), "--service", "qa", "--instance", "one", **env).ready()
        process.call("POST", "/predict", {"question": "who?"})
        until(lambda: found('llm_requests_total{service="qa",cloud="aws",instance="one",model_version="base"}'), 40)
        (agent,) = [p for p in psutil.Process(process.process.pid).children() if "--config.file" in str(p.cmdline())]
        process.process.kill()
        process.process.wait()
        agent.wait(20)
    finally:
        store.kill()
        store.wait()


@pytest.mark.slow
def test_a_process_killed_at_any_moment_of_a_reload_comes_back_with_what_the_document_says(
    start: Callable[..., Process], releases: Releases, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    question = "who wrote hamlet?"
    expected = {}
    for seed in (1, 2, 3):  # large enough that a kill meets every part of fetching and loading
        folder = make_model(tmp_path / f"large{seed}", seed, f"m{seed}", layers=4, width=256)
        releases.upload(folder, f"m{seed}")
        expected[f"m{seed}"] = OnnxEngine(folder).generate([prompt_for(question)], MAX_NEW_TOKENS)[0].text
    assert len(set(expected.values())) == 3
    releases.publish("m1")
    options = ["--store", f"dir:{releases.root}", "--cache", str(tmp_path / "cache"), "--feedback-store", ""]
    moments = random.Random(7)
    for turn in range(6):
        process = start(*options).ready()
        reply = process.call("POST", "/predict", {"question": question})[1]
        assert releases.release is not None
        assert reply["model_version"] in {releases.release.of("stable"), releases.release.of("previous")}
        stable = releases.release.of("stable") or ""
        _becomes(process, stable)
        reply = process.call("POST", "/predict", {"question": question})[1]
        assert (reply["model_version"], reply["answer"]) == (stable, expected[stable])
        releases.publish(f"m{(turn + 1) % 3 + 1}")
        time.sleep(2.0 * moments.random() + 1.0)  # the document is looked at every 2 s
        process.process.kill()
        process.process.wait()


def test_a_process_without_any_folder_to_write_to_serves_or_says_so(model_dir: Path, releases: Releases) -> None:
    code = "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: []; "
    code += "from training_containers.serve.main import main; sys.exit(main(sys.argv[1:]))"
    following = ["--store", f"dir:{releases.root}", "--host", "127.0.0.1", "--port", "0"]

    done = subprocess.run([sys.executable, "-c", code, *following], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("opportune serve: --cache is not set; allowed: a folder that can be written to")

    local = ["--model", str(model_dir), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen([sys.executable, "-c", code, *local], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["action"] == "activate":
                break
        assert any("in place" in e.get("reason", "") for e in events)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_process_listens_on_an_address_of_version_6(start: Callable[..., Process], model_dir: Path) -> None:
    process = start("--model", str(model_dir), "--host", "::1")
    until(lambda: process.answers(200, "::1"))
    with pytest.raises(OSError):
        process.call("GET", "/ping")


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
        (["--model", "{model}/model.safetensors"], "model.safetensors: is a file; a model is a directory"),
        (["--model", "{model}", "--max-new-tokens", "96"], "--max-new-tokens 96 is too much for base"),
        (["--model", "{model}", "--host", "203.0.113.9"], "--host is '203.0.113.9'; allowed: an address of this"),
        (["--store", "gs://x"], "--store is 'gs://x'; allowed: dir:PATH"),
        (["--store", "dir:/nowhere", "--cache", "/proc/none"], "--cache is '/proc/none'; allowed: a folder"),
        (["--store", "dir:/nowhere", "--instance", "a/b"], "--instance is 'a/b'; allowed"),
        ([], "--store is not set; allowed: dir:PATH"),
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


def test_the_services_own_folder_counts_when_a_model_is_in_it(model_dir: Path, tmp_path: Path) -> None:
    store = {"OPPORTUNE_SERVE_STORE": "s3://bucket"}
    assert parse_arguments([], store | {"AZUREML_MODEL_DIR": str(tmp_path)})[0].model == ""
    assert parse_arguments([], store | {"AZUREML_MODEL_DIR": str(model_dir)})[0].model == str(model_dir)
    assert parse_arguments([], {"AZUREML_MODEL_DIR": str(tmp_path)})[0].model == str(tmp_path)


def test_labels_go_to_the_store_unless_told_otherwise() -> None:
    assert parse_arguments(["--store", "s3://a"], {})[0].feedback_store == "s3://a"
    assert parse_arguments(["--store", "s3://a", "--feedback-store", "dir:b"], {})[0].feedback_store == "dir:b"
    assert parse_arguments(["--store", "s3://a"], {"OPPORTUNE_SERVE_FEEDBACK_STORE": ""})[0].feedback_store == ""
    assert parse_arguments(["--model", "m"], {})[0].feedback_store == ""


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
