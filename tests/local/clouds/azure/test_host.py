"""The embedded Functions host feeds functions as the real one does, and outlives what they do wrong."""

import base64
import json
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local.clouds.azure.app import HostConfig, functions_of, resolve
from local.clouds.azure.storage import make_storage, queue_client
from local.processes.supervisor import Service, Supervisor, free_port, tcp_ok
from local.runtimes import AzureWorker, FunctionError
from shared.errors import ConfigurationError, InvalidInputError

pytestmark = pytest.mark.xdist_group("local-clouds")

# A real function app that writes down what it was called with.
APP = textwrap.dedent(
    """
    import json, os, pathlib
    import azure.functions as func
    from werkzeug.wrappers import Request, Response

    def note(name, **what):
        with (pathlib.Path(os.environ["OPPORTUNE_NOTES"]) / name).open("a") as out:
            out.write(json.dumps(what) + "\\n")

    @Request.application
    def web(request):
        if request.path == "/explode":
            raise RuntimeError("exploded")
        if request.path == "/binary":
            return Response(request.get_data()[::-1], mimetype="application/octet-stream")
        return Response(json.dumps({"path": request.path, "args": request.args, "body": request.get_data(as_text=True),
                                    "id": request.headers.get("X-Id")}), 201, {"X-Thing": "yes"})

    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
    blueprint = func.Blueprint()

    @blueprint.timer_trigger(schedule="0 * * * * *", arg_name="timer")
    def tick(timer: func.TimerRequest) -> None:
        note("tick", past_due=timer.past_due)
        raise RuntimeError("a bad tick")

    @blueprint.queue_trigger(arg_name="msg", queue_name="%OPPORTUNE_RETRAIN_QUEUE%", connection="Storage")
    def retrain(msg: func.QueueMessage, context: func.Context) -> None:
        note("retrain", body=msg.get_body().decode(), count=msg.dequeue_count, function=context.function_name)
        if msg.get_body() == b"bad":
            raise ValueError("bad message")

    @blueprint.event_grid_trigger(arg_name="event")
    def done(event: func.EventGridEvent) -> None:
        note("done", type=event.event_type, data=event.get_json(), subject=event.subject)
        if event.get_json().get("fail"):
            raise ValueError("not now")

    app.register_functions(blueprint)

    @app.route(route="{*route}", methods=["GET", "POST"])
    def http(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
        return func.WsgiMiddleware(web).handle(req, context)

    @app.route(route="item/{id}", methods=["GET"])
    async def item(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse(json.dumps(dict(req.route_params)), mimetype="application/json")
    """
)


class Host(NamedTuple):
    """A running host over the app above."""

    url: str
    folder: Path
    queue: Any
    poison: Any

    def notes(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def host(azurite: Any, running: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder, port = tmp_path_factory.mktemp("host"), free_port()
    (folder / "function_app.py").write_text(APP)
    (folder / "host.json").write_text(
        json.dumps({"version": "2.0", "extensions": {"http": {"routePrefix": ""}, "queues": {"maxDequeueCount": 3}}})
    )
    make_storage(azurite.connection, queues=["t-retrain"], containers=[], tables=[])
    env = {
        "OPPORTUNE_NOTES": str(folder),
        "OPPORTUNE_AZURE_STORAGE_CONNECTION": azurite.connection,
        "OPPORTUNE_SLOT_SECONDS": "1",
        "OPPORTUNE_RETRAIN_QUEUE": "t-retrain",
    }
    command = [sys.executable, "-m", "local.clouds.azure.host", "--http-port", str(port), "--package", str(folder)]
    running.start(Service("az-host", command, tcp_ok(port), env))
    queues = [queue_client(azurite.connection, name) for name in ("t-retrain", "t-retrain-poison")]
    yield Host(f"http://127.0.0.1:{port}", folder, *queues)
    running.stop_one("az-host")


def send(queue: Any, text: str) -> None:
    queue.send_message(base64.b64encode(text.encode()).decode())


def poisoned(host: Host) -> str:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        messages = list(host.poison.receive_messages())
    except ResourceNotFoundError:
        return ""
    for message in messages:
        host.poison.delete_message(message)
    return str(messages[0].content) if messages else ""


def test_the_timer_fires_every_slot_also_after_a_failure(host: Host, eventually: Callable[..., Any]) -> None:
    ticks = eventually(lambda: len(host.notes("tick")) >= 2 and host.notes("tick"))
    assert ticks[0] == {"past_due": False}


def test_a_handled_message_is_gone(host: Host, eventually: Callable[..., Any]) -> None:
    send(host.queue, "gøod")
    note = eventually(lambda: [n for n in host.notes("retrain") if n["body"] == "gøod"])
    assert note == [{"body": "gøod", "count": 1, "function": "retrain"}]
    eventually(lambda: host.queue.get_queue_properties().approximate_message_count == 0)


def test_a_failing_message_comes_again_until_the_limit_and_then_goes_to_the_poison_queue(
    host: Host, eventually: Callable[..., Any]
) -> None:
    send(host.queue, "bad")
    kept = eventually(lambda: poisoned(host))
    assert base64.b64decode(kept) == b"bad"
    assert [n["count"] for n in host.notes("retrain") if n["body"] == "bad"] == [1, 2, 3]


def test_a_message_that_is_not_base64_goes_to_the_poison_queue_at_once(
    host: Host, eventually: Callable[..., Any]
) -> None:
    host.queue.send_message("not base64!")
    assert eventually(lambda: poisoned(host)) == "not base64!"
    assert not [n for n in host.notes("retrain") if "not base64" in n["body"]]


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.headers, exc.read()


def test_a_request_reaches_the_wsgi_app_behind_the_catch_all_route(host: Host) -> None:
    status, headers, raw = ask(f"{host.url}/a%20b/c?x=1", "où?".encode(), {"X-Id": "7", "Content-Type": "text/plain"})
    assert (status, headers["X-Thing"]) == (201, "yes")
    assert json.loads(raw) == {"path": "/a b/c", "args": {"x": "1"}, "body": "où?", "id": "7"}
    assert ask(f"{host.url}/")[0] == 201


def test_bodies_that_are_no_text_travel_unchanged(host: Host) -> None:
    assert ask(f"{host.url}/binary", b"\x00\xff", {"Content-Type": "application/octet-stream"})[2] == b"\xff\x00"


def test_a_literal_route_wins_over_the_catch_all_and_may_be_async(host: Host) -> None:
    status, headers, raw = ask(f"{host.url}/item/7")
    assert (status, json.loads(raw)) == (200, {"id": "7"})
    assert headers["Content-Type"].startswith("application/json")


def test_a_function_that_raises_is_a_500_and_the_host_goes_on(host: Host) -> None:
    assert ask(f"{host.url}/explode")[0] == 500
    assert ask(f"{host.url}/again")[0] == 201


def event(**data: Any) -> bytes:
    return json.dumps(
        [
            {
                "id": "1",
                "topic": "/subscriptions/s",
                "subject": "experiments/e/runs/r",
                "eventType": "Microsoft.MachineLearningServices.RunCompleted",
                "eventTime": "2026-01-02T03:04:05.1234567Z",
                "data": data,
                "dataVersion": "1.0",
                "metadataVersion": "1",
            }
        ]
    ).encode()


def test_an_event_grid_delivery_reaches_its_function_and_a_failure_asks_for_another(host: Host) -> None:
    hook = f"{host.url}/runtime/webhooks/eventgrid?functionName=done"
    assert ask(hook, event(runId="r"))[0] == 200
    assert host.notes("done")[-1] == {
        "type": "Microsoft.MachineLearningServices.RunCompleted",
        "data": {"runId": "r"},
        "subject": "experiments/e/runs/r",
    }
    assert ask(hook, event(fail=True))[0] == 500
    assert ask(hook, b"{}")[0] == 400
    assert ask(f"{host.url}/runtime/webhooks/eventgrid?functionName=other", event())[0] == 404


def test_event_grids_handshake_is_answered(host: Host) -> None:
    body = json.dumps([{"data": {"validationCode": "42"}}]).encode()
    hook = f"{host.url}/runtime/webhooks/eventgrid?functionName=done"
    status, _, raw = ask(hook, body, {"aeg-event-type": "SubscriptionValidation"})
    assert (status, json.loads(raw)) == (200, {"validationResponse": "42"})


def test_host_json_is_read_with_the_hosts_defaults(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text('{"version": "2.0"}')
    assert HostConfig.read(path) == HostConfig("api", 5, 16, 0.0, True, 300.0)
    path.write_text('{"extensions": {"queues": {"visibilityTimeout": "00:01:30", "messageEncoding": "none"}}}')
    assert (HostConfig.read(path).visibility_timeout_s, HostConfig.read(path).base64) == (90.0, False)
    path.write_text("{")
    with pytest.raises(InvalidInputError, match=r"host\.json cannot be read"):
        HostConfig.read(path)


def test_a_binding_names_a_setting() -> None:
    assert resolve("%A%-x", {"A": "q"}) == "q-x"
    with pytest.raises(ConfigurationError, match="B is not set"):
        resolve("%B%", {})


def test_a_binding_the_host_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(
        "import azure.functions as func\napp = func.FunctionApp()\n"
        "@app.blob_trigger(arg_name='b', path='x', connection='c')\ndef seen(b: func.InputStream) -> None: ...\n"
    )
    with (
        AzureWorker(tmp_path, {}, tmp_path / "log") as worker,
        pytest.raises(InvalidInputError, match="function seen: the embedded host has no blobTrigger"),
    ):
        functions_of(worker, HostConfig())


def test_an_app_that_does_not_import_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text("import nowhere_to_be_found")
    with pytest.raises(FunctionError, match="nowhere_to_be_found"):
        AzureWorker(tmp_path, {}, tmp_path / "log")
