"""Samples of the contracts, a small web server, and real storage: moto in this process, Azurite in one of its own.

Imported inside the fixtures, so that tests which need none of it wait for none of it.
"""

# ruff: noqa: TID251 - the fixtures build what the SDKs then find

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

    from shared.contracts import Decision, ModelManifest, TrainingJob
    from shared.settings import Settings


def pytest_configure() -> None:
    """A job in the background of a script ignores Ctrl-C and so would every program that the tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


#: fixtures behind which an emulated cloud, a deployed package or a program of its own runs
EMULATORS = frozenset({"azurite", "cluster", "deployment", "moto", "osls", "own_azurite", "packages", "running"})
#: fixtures that are the same port in memory and over the emulators, by their parameter
PORTS = frozenset({"documents", "objects", "queue"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses an emulator, so that `make test-fast` can leave it out."""
    for item in items:
        names = frozenset(getattr(item, "fixturenames", ()))
        kinds = item.callspec.params.values() if hasattr(item, "callspec") else ()
        over_a_cloud = PORTS & names and any(isinstance(kind, str) and kind in ("aws", "azure") for kind in kinds)
        if EMULATORS & names or over_a_cloud:
            item.add_marker(pytest.mark.emulator)


@pytest.fixture(scope="session")
def a_job() -> Callable[..., TrainingJob]:
    """A function: fields that matter to the test -> a valid job."""
    from shared.contracts import TrainingJob

    def make(**changes: Any) -> TrainingJob:
        plain: dict[str, Any] = {
            "job_id": "qa-1",
            "service": "qa",
            "slot_s": 0.0,
            "cloud": "aws",
            "trace_id": "0" * 32,
            "decision_id": "d",
            "parent_version": "base",
            "data_start_s": 0.0,
            "data_end_s": 1.0,
            "hyperparameters": {},
            "cost_ceiling_usd": 1.0,
            "deadline_s": 60.0,
        }
        return TrainingJob(**plain | changes)

    return make


@pytest.fixture(scope="session")
def a_manifest() -> Callable[..., ModelManifest]:
    """A function: fields that matter to the test -> a valid manifest, of a model without files."""
    from shared.contracts import Metrics, ModelManifest

    def make(**changes: Any) -> ModelManifest:
        plain: dict[str, Any] = {
            "service": "qa",
            "model_version": "m1",
            "parent_version": "base",
            "job_id": "qa-1",
            "trace_id": "0" * 32,
            "created_s": 0.0,
            "base_model": "tiny",
            "data_start_s": 0.0,
            "data_end_s": 1.0,
            "data_sha256": "0" * 64,
            "train_examples": 1,
            "eval_sha256": "0" * 64,
            "candidate": Metrics(bleu1=0.5, exact_match=0.5, f1=0.5, rouge_l=0.5, examples=10),
            "serving": None,
            "duration_s": 1.0,
            "files": {},
        }
        return ModelManifest(**plain | changes)

    return make


@pytest.fixture(scope="session")
def a_decision() -> Callable[..., Decision]:
    """A function: fields that matter to the test -> a valid decision, to hold; `wanted` is the action unless told."""
    from shared.contracts import Action, Decision

    def make(action: Action = Action.HOLD, **changes: Any) -> Decision:
        plain: dict[str, Any] = {
            "decision_id": "decision-qa-1",
            "service": "qa",
            "slot_s": 1.0,
            "decided_by": "aws",
            "mode": "act",
            "action": action,
            "wanted": action,
            "probabilities": (1.0, 0.0, 0.0),
            "guardrails": (),
            "observation": {},
            "attributions": {},
            "policy": "ppo",
            "policy_sha256": "",
            "trace_id": "0" * 32,
            "reason": "steady",
        }
        return Decision(**plain | changes)

    return make


@pytest.fixture(scope="session")
def a_tar() -> Callable[..., bytes]:
    """A function: name -> content, tarfile's mode -> the archive."""
    import io
    import tarfile

    def make(files: dict[str, bytes], mode: Any = "w:gz") -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode=mode) as archive:
            for name, body in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
        return content.getvalue()

    return make


class Asked(NamedTuple):
    """One request to the server of a test."""

    method: str
    path: str
    headers: Message
    body: bytes
    client: tuple[str, int]


@pytest.fixture(scope="session")
def http_server() -> Callable[..., Any]:
    """A context: a function, request -> status, body and perhaps headers, becomes a server; gives its address."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    @contextmanager
    def serve(answer: Callable[[Asked], tuple[Any, ...]]) -> Iterator[str]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, self.path, self.headers, body, self.client_address)
                status, told, *headers = answer(asked)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(told)), **dict(*headers)}.items():
                    self.send_header(name, value)
                with suppress(ConnectionError):  # a client may have given up by now
                    self.end_headers()
                    self.wfile.write(told)

            do_POST = do_PUT = do_GET

            def log_message(self, *_: Any) -> None:
                """Silent."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()

    return serve


def _quicken(patch: pytest.MonkeyPatch) -> None:
    """Make moto's server cheap enough for thousands of requests; what it answers stays the same."""
    import moto.sqs.models
    from werkzeug.serving import WSGIRequestHandler

    # Connections stay open as those of AWS do, instead of one and a thread per request; no line per request.
    patch.setattr(WSGIRequestHandler, "protocol_version", "HTTP/1.1")
    patch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # SQS asks for the time about twelve times per message in the queue for each one that it hands out.
    clock = time.time
    patch.setattr(moto.sqs.models, "unix_time", clock)
    patch.setattr(moto.sqs.models, "unix_time_millis", lambda: clock() * 1000.0)


@pytest.fixture(scope="session")
def moto() -> Iterator[None]:
    """AWS: table, bucket and queues exist; the SDK finds it through the environment as in production."""
    import boto3
    from moto.server import ThreadedMotoServer

    from functions.bootstrap import aws_session

    patch = pytest.MonkeyPatch()
    _quicken(patch)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    aws_session.cache_clear()
    boto3.client("dynamodb").create_table(
        TableName="opportune",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("kind", "key")],
        KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "key", "KeyType": "RANGE"}],
    )
    boto3.client("s3").create_bucket(Bucket="opportune")
    for name in ("opportune-retrain", "opportune-retrain-dlq"):
        boto3.client("sqs").create_queue(QueueName=name)
    yield
    server.stop()
    aws_session.cache_clear()
    patch.undo()


@contextmanager
def _azurite(folder: Path) -> Iterator[Settings]:
    """Azure storage of its own: table, container and queues exist."""
    from azure.data.tables import TableServiceClient
    from azure.storage.blob import BlobServiceClient
    from azure.storage.queue import QueueClient
    from rich.console import Console

    from local.clouds.azure.storage import azurite_command, connection_string
    from local.processes.supervisor import Service, Supervisor, free_port, tcp_ok, tool
    from shared.settings import Settings

    blob, queue, table = (free_port() for _ in range(3))
    console = Console(stderr=True, force_terminal=False)
    with Supervisor(folder, console=console, grace_s=1.0) as supervisor:
        command = azurite_command(tool("azurite"), blob, queue, table, folder / "data")
        supervisor.start(Service("azurite", command, tcp_ok(table)))
        connection = connection_string(blob, queue, table)
        TableServiceClient.from_connection_string(connection).create_table("opportune")
        BlobServiceClient.from_connection_string(connection).create_container("opportune")
        for name in ("opportune-retrain", "opportune-retrain-poison"):
            QueueClient.from_connection_string(connection, name).create_queue()
        yield Settings(azure_storage_connection=connection)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Azure storage that the tests of a process share."""
    with _azurite(tmp_path_factory.mktemp("azurite")) as settings:
        yield settings


@pytest.fixture(scope="module")
def own_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Azure storage that only the tests of a module see: which others ran before in the process does not matter."""
    with _azurite(tmp_path_factory.mktemp("azurite")) as settings:
        yield settings
