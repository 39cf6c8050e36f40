"""Distance and outages on one machine."""

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from local.processes.latency_proxy import change
from local.processes.supervisor import Service, Supervisor, free_port, http_ok

pytestmark = pytest.mark.xdist_group("local-clouds")


class Net(NamedTuple):
    """A proxy in front of a server that echoes."""

    url: str
    control: str
    port: int


@pytest.fixture(scope="module")
def net(running: Supervisor, http_server: Callable[..., Any]) -> Iterator[Net]:
    port, control = free_port(), free_port()
    with http_server(lambda asked: (200, asked.body)) as echo:
        route = f"far:{port}:{echo.rpartition(':')[2]}"
        command = [
            sys.executable,
            "-m",
            "local.processes.latency_proxy",
            "--control-port",
            str(control),
            "--route",
            route,
        ]
        running.start(Service("network", command, http_ok(f"http://127.0.0.1:{control}/")))
        yield Net(f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{control}", port)
        running.stop_one("network")


def ask(url: str, body: bytes = b"x") -> tuple[bytes, float]:
    begun = time.monotonic()
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as answer:
        return answer.read(), time.monotonic() - begun


def test_an_answer_takes_twice_the_delay_longer(net: Net) -> None:
    change(net.control, "far", delay_s=0.0, cut=False)
    assert ask(net.url)[1] < 0.9
    change(net.control, "far", delay_s=0.5)
    body, took = ask(net.url)
    assert body == b"x"
    assert 1.0 <= took < 1.9


def test_a_large_body_arrives_whole_and_is_delayed_once_not_per_chunk(net: Net) -> None:
    change(net.control, "far", delay_s=0.1, cut=False)
    sent = bytes(range(256)) * 8192  # 2 MB
    body, took = ask(net.url, sent)
    assert body == sent
    assert took < 2.0


def test_a_cut_ends_open_connections_and_refuses_new_ones_until_it_is_mended(net: Net) -> None:
    change(net.control, "far", delay_s=0.0, cut=False)
    with socket.create_connection(("127.0.0.1", net.port)) as standing:
        standing.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert standing.recv(100).startswith(b"HTTP/1.1 200")
        change(net.control, "far", cut=True)
        standing.settimeout(3)
        try:
            while standing.recv(100):
                pass
        except ConnectionResetError:
            pass
    with pytest.raises(OSError):
        ask(net.url)
    change(net.control, "far", cut=False)
    assert ask(net.url)[0] == b"x"


@pytest.mark.parametrize(
    ("name", "body", "status"), [("nobody", {}, 404), ("far", {"delay_s": -1}, 400), ("far", 3, 400)]
)
def test_a_wrong_change_is_refused(net: Net, name: str, body: Any, status: int) -> None:
    request = urllib.request.Request(f"{net.control}/{name}", json.dumps(body).encode(), method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    assert refused.value.code == status
