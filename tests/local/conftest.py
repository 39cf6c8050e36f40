"""Real embedded clouds for the tests, started once per worker."""

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3  # noqa: TID251 - the test is a client of its own
import pytest
from rich.console import Console

from local.clouds.aws.cloud import local_credentials
from local.clouds.azure.storage import azurite_command, connection_string
from local.processes.supervisor import Service, Supervisor, free_port, tcp_ok, tool

# A container: reads its hyperparameters and channels, writes a model, and fails or waits when it is told to.
TRAIN = textwrap.dedent(
    """
    import json, os, pathlib, signal, sys, time
    root = pathlib.Path(os.environ["OPPORTUNE_ML_ROOT"])
    hyper = json.loads((root / "input/config/hyperparameters.json").read_text())
    if hyper.get("fail"):
        (root / "output/failure").write_text(hyper["fail"])
        sys.exit(3)
    def stopped(*_):
        (root / "checkpoints/step").write_text("7")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stopped)
    time.sleep(float(hyper.get("seconds", 0)))
    data = {p.relative_to(root / "input/data").as_posix(): p.read_text()
            for p in sorted((root / "input/data").rglob("*")) if p.is_file()}
    checkpoints = sorted(p.name for p in (root / "checkpoints").iterdir())
    channels = sorted(json.loads((root / "input/config/inputdataconfig.json").read_text()))
    host = json.loads((root / "input/config/resourceconfig.json").read_text())["current_host"]
    (root / "model/report.json").write_text(json.dumps({
        "hyper": hyper, "data": data, "checkpoints": checkpoints, "channels": channels, "host": host,
        "job": os.environ["TRAINING_JOB_NAME"], "extra": os.environ.get("EXTRA")}))
    """
)


class Serving(NamedTuple):
    """A process's worth of admin API: what was asked of it, in order; versions called broken... cannot load."""

    url: str
    calls: list[tuple[str, str, Any]]


class Azurite(NamedTuple):
    """A running Azure storage."""

    connection: str


class LocalAws(NamedTuple):
    """A running embedded AWS."""

    url: str
    client: Callable[[str], Any]


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """A function that waits for the first truthy value of a condition and fails when there is none in time."""

    def wait(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.05)
        return value

    return wait


def _supervisor(folder: Path) -> Supervisor:
    return Supervisor(folder / "logs", console=Console(stderr=True, force_terminal=False), grace_s=1.0)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """A supervisor for the session's servers."""
    with _supervisor(tmp_path_factory.mktemp("clouds")) as supervisor:
        yield supervisor


@pytest.fixture(scope="session")
def serving(http_server: Callable[..., Any]) -> Iterator[Serving]:
    """The serving process behind the endpoints of both embedded clouds."""
    calls: list[tuple[str, str, Any]] = []

    def admin(asked: Any) -> tuple[int, bytes]:
        if asked.method == "GET":
            models = [
                {"version": "v2", "state": "ready", "reason": ""},
                {"version": "broken5", "state": "failed", "reason": "no config.json"},
            ]
            return 200, json.dumps({"active": "base", "models": models}).encode()
        body = json.loads(asked.body)
        if asked.headers["X-Opportune-Admin"] != "secret":
            return 403, b"wrong token"
        if "broken3" in asked.path:
            return 422, b"sha256 differs"
        if "artifact" in body:
            body = sorted(p.name for p in Path(body["artifact"]).iterdir())
        calls.append((asked.method, asked.path, body))
        return 200, b"{}"

    with http_server(admin) as url:
        yield Serving(url, calls)


@pytest.fixture(scope="session")
def local_aws(running: Supervisor, serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> LocalAws:
    """The embedded AWS with a training container of the tests' own."""
    folder, port = tmp_path_factory.mktemp("aws"), free_port()
    script = folder / "train.py"
    script.write_text(TRAIN)
    env = {
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_LOCAL_TRAIN_COMMAND": f"{sys.executable} {script}",
        "OPPORTUNE_LOCAL_SERVE_URL": serving.url,
        "OPPORTUNE_ADMIN_TOKEN": "secret",
    }
    command = [sys.executable, "-m", "local.clouds.aws.cloud", "--port", str(port)]
    running.start(Service("aws", command, tcp_ok(port), env))
    url = f"http://127.0.0.1:{port}"
    keys = local_credentials()

    def client(service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=url,
            region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )

    return LocalAws(url, client)


@pytest.fixture(scope="session")
def azurite(running: Supervisor) -> Azurite:
    """Azure queues, blobs and tables."""
    blob, queue, table = (free_port() for _ in range(3))
    running.start(Service("azurite", azurite_command(tool("azurite"), blob, queue, table), tcp_ok(table)))
    return Azurite(connection_string(blob, queue, table))
