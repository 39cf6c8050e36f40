"""Metrics leave the container: what the agent is told, how it lives and dies, and that samples arrive."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import os
import socket
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.errors import ConfigurationError
from tests.training_containers.serve.releasing import until
from training_containers.serve.agent import Agent, WriteSettings, configuration

TOOLS = Path(__file__).parents[3] / ".tools/bin"
CLIENT = "11111111-2222-3333-4444-555555555555"
URL = "https://metrics.example/api/v1/write"
needs_prometheus = pytest.mark.skipif(not (TOOLS / "prometheus").exists(), reason="no prometheus here; see make")


def env(**changes: str) -> dict[str, str]:
    return {f"OPPORTUNE_METRICS_{name}": value for name, value in {"WRITE_URL": URL, **changes}.items()}


def settings(**changes: str) -> WriteSettings:
    found = WriteSettings.from_env(env(**changes) | {"AWS_REGION": "eu-west-1"})
    assert found is not None
    return found


def config(**changes: str) -> dict[str, Any]:
    return configuration(settings(**changes), "127.0.0.1:8080", "qa", "aws", "one")


# --- what it is told


def test_without_an_address_nothing_is_sent() -> None:
    assert WriteSettings.from_env({}) is None


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, {}),
        ({"WRITE_AUTH": "none"}, {}),
        (
            {"WRITE_AUTH": "basic", "WRITE_TOKEN": "me:pass:word"},
            {"basic_auth": {"username": "me", "password": "pass:word"}},
        ),
        (
            {"WRITE_AUTH": "bearer", "WRITE_TOKEN": "s3cret"},
            {"authorization": {"type": "Bearer", "credentials": "s3cret"}},
        ),
        ({"WRITE_AUTH": "sigv4"}, {"sigv4": {"region": "eu-west-1"}}),
        ({"WRITE_AUTH": "entra"}, {"azuread": {"cloud": "AzurePublic", "sdk": {}}}),
        (
            {"WRITE_AUTH": "entra", "WRITE_CLIENT_ID": CLIENT},
            {"azuread": {"cloud": "AzurePublic", "managed_identity": {"client_id": CLIENT}}},
        ),
    ],
)
def test_each_way_to_prove_who_writes(changes: dict[str, str], part: dict[str, Any]) -> None:
    (write,) = config(**changes)["remote_write"]
    plain = {"url", "remote_timeout", "queue_config", "write_relabel_configs"}
    assert {name: value for name, value in write.items() if name not in plain} == part
    assert write["url"] == URL


def test_user_and_password_in_the_address_are_not_left_there() -> None:
    (write,) = config(WRITE_URL="https://me:p%40ss@metrics.example/write?x=1")["remote_write"]
    assert write["url"] == "https://metrics.example/write?x=1"
    assert write["basic_auth"] == {"username": "me", "password": "p@ss"}


def test_series_say_whose_they_are() -> None:
    made = config(SCRAPE_SECONDS="5")
    assert made["global"]["scrape_interval"] == "5s"
    assert made["global"]["external_labels"] == {"service": "qa", "cloud": "aws"}
    (job,) = made["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8080"], "labels": {"instance": "one"}}]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"WRITE_URL": "metrics.example"}, "OPPORTUNE_METRICS_WRITE_URL is 'metrics.example'"),
        ({"WRITE_AUTH": "mtls"}, "WRITE_AUTH is 'mtls'; allowed: none, basic, bearer, sigv4, entra"),
        ({"WRITE_AUTH": "bearer"}, "WRITE_TOKEN is not set"),
        ({"WRITE_AUTH": "basic", "WRITE_TOKEN": "hunter2"}, "WRITE_TOKEN is not set; allowed: USER:PASSWORD"),
        ({"WRITE_AUTH": "sigv4"}, "AWS_REGION is not set"),
        ({"WRITE_AUTH": "entra", "WRITE_CLIENT_ID": "me"}, "WRITE_CLIENT_ID is 'me'; allowed: a client id"),
        ({"SCRAPE_SECONDS": "0"}, "SCRAPE_SECONDS is '0'; allowed: a whole number from 1 to 300"),
    ],
)
def test_a_wrong_variable_is_named_without_its_secret(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        WriteSettings.from_env(env(**changes))
    assert "hunter2" not in str(refused.value)


@needs_prometheus
@pytest.mark.parametrize("auth", ["none", "basic", "bearer", "sigv4"])
def test_prometheus_understands_the_configuration(tmp_path: Path, auth: str) -> None:
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(config(WRITE_AUTH=auth, WRITE_TOKEN="a:b")))
    done = subprocess.run(
        [TOOLS / "promtool", "check", "config", "--agent", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- how it lives


SCRIPT = """#!/bin/sh
case "$1" in --version) echo "prometheus, version {version}"; exit 0;; esac
echo "$@" >> {folder}/started
for word in "$@"; do case "$word" in --config.file=*) cp -p "${{word#--config.file=}}" {folder}/config;; esac; done
env > {folder}/env
echo "level=warn msg=refused token=s3cret url=https://me:pw@metrics.example/write"
{then}
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    made: list[Agent] = []

    def begin(then: str, version: str = "2.53.1", shared: Path | None = None) -> Agent:
        program = tmp_path / "prometheus"
        program.write_text(SCRIPT.format(folder=tmp_path, then=then, version=version))
        program.chmod(0o755)
        told = settings(WRITE_AUTH="bearer", WRITE_TOKEN="s3cret", AGENT=str(program))
        made.append(Agent(told, configuration(told, "127.0.0.1:1", "qa", "aws", "one"), shared))
        made[-1].start()
        return made[-1]

    yield begin
    for agent in made:
        agent.stop()


def _starts(tmp_path: Path) -> int:
    path = tmp_path / "started"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(("version", "flag"), [("2.53.1", "--enable-feature=agent"), ("3.5.0", "--agent")])
def test_only_it_may_read_what_it_is_told_and_its_words_hide_secrets(
    run: Callable[..., Agent],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    flag: str,
) -> None:
    monkeypatch.setenv("OPPORTUNE_METRICS_WRITE_TOKEN", "s3cret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    agent = run("exec sleep 60", version)
    until(lambda: "refused" in caplog.text)

    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o600
    assert flag in (tmp_path / "started").read_text()
    assert "s3cret" not in (tmp_path / "started").read_text() + (tmp_path / "env").read_text()
    assert "AWS_REGION=eu-west-1" in (tmp_path / "env").read_text()
    assert "token=(hidden)" in caplog.text
    assert "s3cret" not in caplog.text
    assert "me:pw" not in caplog.text
    agent.stop()
    assert agent.pid is None


def test_a_program_too_old_to_prove_who_it_is_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = tmp_path / "prometheus"
    program.write_text(SCRIPT.format(folder=tmp_path, then="exit 1", version="2.42.0+ds"))
    program.chmod(0o755)
    agent = Agent(settings(WRITE_AUTH="sigv4", AGENT=str(program)), {})
    agent.start()
    until(lambda: "has version 2.42, sigv4 needs 2.53 or newer" in caplog.text)
    agent.stop()


def test_one_that_dies_is_started_again_later_each_time(
    run: Callable[..., Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("training_containers.serve.agent._BACKOFF_S", (0.05, 0.2))
    run("exit 3")
    until(lambda: _starts(tmp_path) >= 3)
    assert "it ended with exit code 3; it is started again in 0.05 s" in caplog.text
    assert "again in 0.1 s" in caplog.text


def test_a_missing_program_is_said_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    told = settings(AGENT="/nowhere/prometheus")
    agent = Agent(told, {})
    agent.start()
    until(lambda: "/nowhere/prometheus cannot be started: No such file or directory" in caplog.text)
    agent.stop()


def test_of_processes_that_share_their_metrics_one_runs_it(
    run: Callable[..., Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training_containers.serve.agent._LOCK_EVERY_S", 0.05)
    (tmp_path / "prom").mkdir()
    one = run("exec sleep 60", shared=tmp_path / "prom")
    until(lambda: one.pid)
    two = run("exec sleep 60", shared=tmp_path / "prom")
    time.sleep(0.3)
    assert two.pid is None
    one.stop()
    until(lambda: two.pid)


def test_one_that_does_not_want_to_end_is_ended(
    run: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("training_containers.serve.agent._FLUSH_S", -1)
    agent = run("trap '' TERM; while :; do sleep 0.1; done")
    until(lambda: _starts(tmp_path) == 1)
    pid = agent.pid
    assert pid is not None
    agent.stop()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


# --- the real thing


class _Page(http.server.BaseHTTPRequestHandler):
    value = 1.0

    def do_GET(self) -> None:
        body = f'llm_tokens_total{{service="qa",cloud="aws"}} {self.value}\nother_metric 1\n'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@needs_prometheus
@pytest.mark.slow
def test_samples_arrive_at_a_real_prometheus_with_a_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    port = _free_port()
    (tmp_path / "prometheus.yml").write_text("global: {}\n")
    store = subprocess.Popen(
        [
            TOOLS / "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    told = settings(
        WRITE_URL=f"http://agent:secret@127.0.0.1:{port}/api/v1/write",
        SCRAPE_SECONDS="1",
        AGENT=str(TOOLS / "prometheus"),
    )
    agent = Agent(told, configuration(told, f"127.0.0.1:{page.server_port}", "qa", "aws", "one"))

    def found(query: str) -> list[dict[str, Any]]:
        try:
            url = f"http://127.0.0.1:{port}/api/v1/query?query={query}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    try:
        until(lambda: _answers(port), 30)
        agent.start()
        until(lambda: found("llm_tokens_total"), 30)
        (series,) = found("llm_tokens_total")
        assert series["metric"]["instance"] == "one"
        assert (series["metric"]["service"], series["metric"]["cloud"]) == ("qa", "aws")
        assert found("other_metric") == []
        (up,) = found("up")
        assert (up["metric"]["service"], up["metric"]["cloud"]) == ("qa", "aws")
        pid = agent.pid
        assert pid is not None
        os.kill(pid, 9)
        until(lambda: agent.pid not in (None, pid), 10)
        _Page.value = 7.0
        until(lambda: [s["value"][1] for s in found("llm_tokens_total")] == ["7"], 30)
        agent.stop()
        assert agent.pid is None
        assert "secret@" not in caplog.text
    finally:
        agent.stop()
        store.kill()
        store.wait()
        page.shutdown()
        page.server_close()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class _Receiver(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.headers.get("Authorization", ""))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@needs_prometheus
@pytest.mark.slow
@pytest.mark.parametrize(
    ("auth", "token", "proof"),
    [
        ("basic", "me:word", "Basic " + base64.b64encode(b"me:word").decode()),
        ("bearer", "s3cret", "Bearer s3cret"),
    ],
)
def test_every_write_proves_who_sends_it(auth: str, token: str, proof: str) -> None:
    _Receiver.asked = []
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (_Page, _Receiver)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    page, receiver = servers
    told = settings(
        WRITE_URL=f"http://127.0.0.1:{receiver.server_port}/write",
        WRITE_AUTH=auth,
        WRITE_TOKEN=token,
        SCRAPE_SECONDS="1",
        AGENT=str(TOOLS / "prometheus"),
    )
    agent = Agent(told, configuration(told, f"127.0.0.1:{page.server_port}", "qa", "aws", "one"))
    agent.start()
    try:
        until(lambda: _Receiver.asked, 30)
        assert _Receiver.asked[0].startswith(proof)
    finally:
        agent.stop()
        for server in servers:
            server.shutdown()
            server.server_close()
