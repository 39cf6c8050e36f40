"""Real embedded clouds for the tests, started once per worker."""

import json
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3  # noqa: TID251 - the test is a client of its own
import pytest
from botocore.config import Config  # noqa: TID251
from rich.console import Console

from local.clouds.aws.cloud import local_credentials
from local.clouds.azure.storage import azurite_command, connection_string
from local.clouds.faults import PATH
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
        "job": os.environ["TRAINING_JOB_NAME"], "extra": os.environ.get("EXTRA"),
        "settings": sorted(name for name in os.environ if name.startswith("OPPORTUNE_"))}))
    """
)


# A serving container: answers with what it was told, and is never healthy or ends when that says so.
SERVE = textwrap.dedent(
    """
    import http.server, json, os, sys, time
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or os.environ["OPPORTUNE_SERVE_PORT"])
    if os.environ.get("FAIL") == "ends":
        sys.exit(3)
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def answer(self, status, body):
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        def do_GET(self):
            self.answer(503 if os.environ.get("FAIL") == "unhealthy" else 200, {})
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(body.get("sleep", 0))
            self.answer(body.get("status", 200), {
                "path": self.path, "env": dict(os.environ), "pid": os.getpid(),
                "headers": {name.lower(): value for name, value in self.headers.items()}})
        def log_message(self, *_):
            pass
    print("up on", port, flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    """
)


class Azurite(NamedTuple):
    """A running Azure storage."""

    connection: str


class LocalAws(NamedTuple):
    """A running embedded AWS."""

    url: str
    client: Callable[[str], Any]
    runtime_url: str
    refuse: Callable[[dict[str, Any]], None]


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


def refuse(url: str, faults: dict[str, Any]) -> None:
    """Have an embedded cloud refuse what is asked for here, and nothing else."""
    request = urllib.request.Request(f"{url}{PATH}", json.dumps(faults).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=5).close()


@pytest.fixture(scope="session")
def serve_command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the image runs to serve, in place of ours."""
    script = tmp_path_factory.mktemp("image") / "serve.py"
    script.write_text(SERVE)
    return f"{sys.executable} {script}"


@pytest.fixture(scope="session")
def local_aws(running: Supervisor, serve_command: str, tmp_path_factory: pytest.TempPathFactory) -> LocalAws:
    """The embedded AWS with training and serving containers of the tests' own."""
    folder, port, runtime = tmp_path_factory.mktemp("aws"), free_port(), free_port()
    script = folder / "train.py"
    script.write_text(TRAIN)
    env = {
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_LOCAL_TRAIN_COMMAND": f"{sys.executable} {script}",
        "OPPORTUNE_LOCAL_SERVE_COMMAND": serve_command,
        "OPPORTUNE_LOCAL_HEALTH_SECONDS": "15",
        "OPPORTUNE_OF_THE_CALLER": "a setting of this process",
    }
    running.start(
        Service("aws", [sys.executable, "-m", "local.clouds.aws.cloud", "--port", str(port)], tcp_ok(port), env),
        Service(
            "runtime", [sys.executable, "-m", "local.clouds.aws.runtime", "--port", str(runtime)], tcp_ok(runtime), env
        ),
    )
    url, runtime_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{runtime}"
    keys = local_credentials()

    def client(service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=runtime_url if service == "sagemaker-runtime" else url,
            region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"max_attempts": 0}),
        )

    return LocalAws(url, client, runtime_url, lambda faults: refuse(url, faults))


@pytest.fixture(scope="session")
def azurite(running: Supervisor) -> Azurite:
    """Azure queues, blobs and tables."""
    blob, queue, table = (free_port() for _ in range(3))
    running.start(Service("azurite", azurite_command(tool("azurite"), blob, queue, table), tcp_ok(table)))
    return Azurite(connection_string(blob, queue, table))
