"""TCP proxy with a settable delay in front of each endpoint: the distance to a cloud on one machine. It can be cut.

    python -m local.processes.latency_proxy --control-port C --route aws:LISTEN:TARGET --route azure:LISTEN:TARGET

`PUT /aws {"delay_s": 0.05, "cut": false}` on the control port changes a route, `GET /` shows all of them. The delay is
one way: a request and its answer together take twice as long. A cut route drops its connections and refuses new ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import threading
import urllib.request
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

CHUNK_BYTES: Final = 65536
#: chunks on their way in one direction; more of them hold the sender back
IN_FLIGHT: Final = 256
MAX_DELAY_S: Final = 60.0


@dataclass
class Link:
    """The state of one route."""

    delay_s: float = 0.0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One proxied port."""

    name: str
    listen: int
    target: int

    @classmethod
    def parse(cls, text: str) -> Route:
        """From NAME:LISTEN:TARGET. Raises ValueError."""
        name, listen, target = text.split(":")
        return cls(name, int(listen), int(target))


class Proxy:
    """Forwards the connections of one route."""

    def __init__(self, target: int, link: Link) -> None:
        self._target = target
        self._link = link
        self._open: set[asyncio.StreamWriter] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, to its end."""
        if self._link.cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._open |= both
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._open -= both
            for side in both:
                side.close()

    def drop(self) -> None:
        """End every connection at once."""
        for side in list(self._open):
            side.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Everything from `reader` to `writer`, each chunk when it has travelled."""
        clock = asyncio.get_running_loop().time
        travelling: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

        async def arrive() -> None:
            with contextlib.suppress(OSError):
                while True:
                    due, chunk = await travelling.get()
                    await asyncio.sleep(max(0.0, due - clock()))
                    if not chunk:
                        writer.write_eof()
                        return
                    writer.write(chunk)
                    await writer.drain()
            # The far side is gone: take the rest, so that the near side is not held up for ever.
            while (await travelling.get())[1]:
                pass

        arriving = asyncio.create_task(arrive())
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            await travelling.put((clock() + self._link.delay_s, chunk))
        await arriving


class Control(BaseHTTPRequestHandler):
    """The control port."""

    links: dict[str, Link]
    dropped: Any  # called with the name of a route that was cut

    def do_GET(self) -> None:
        """All routes."""
        self._answer(200, {name: asdict(link) for name, link in self.links.items()})

    def do_PUT(self) -> None:
        """Change one route."""
        name = self.path.strip("/")
        link = self.links.get(name)
        if link is None:
            return self._answer(404, {"error": f"no route {name!r}"})
        try:
            change = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            delay_s, cut = float(change.get("delay_s", link.delay_s)), bool(change.get("cut", link.cut))
        except (ValueError, TypeError, AttributeError):
            return self._answer(400, {"error": 'the body is not {"delay_s": seconds, "cut": true or false}'})
        if not (math.isfinite(delay_s) and 0 <= delay_s <= MAX_DELAY_S):
            return self._answer(400, {"error": f"delay_s is not in [0, {MAX_DELAY_S:g}]"})
        link.delay_s, link.cut = delay_s, cut
        if cut:
            type(self).dropped(name)
        return self._answer(200, asdict(link))

    def _answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a control request is not worth a line."""


async def run(routes: list[Route], control_port: int) -> None:
    """Forward until cancelled."""
    loop = asyncio.get_running_loop()
    links = {route.name: Link() for route in routes}
    proxies = {route.name: Proxy(route.target, links[route.name]) for route in routes}
    Control.links = links
    Control.dropped = staticmethod(lambda name: loop.call_soon_threadsafe(proxies[name].drop))
    control = ThreadingHTTPServer(("127.0.0.1", control_port), Control)
    threading.Thread(target=control.serve_forever, name="control", daemon=True).start()
    servers = [
        await asyncio.start_server(proxies[route.name].handle, "127.0.0.1", route.listen, backlog=1024)
        for route in routes
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def change(control_url: str, name: str, **link: float | bool) -> None:
    """Change a route of a running network: `delay_s`, `cut`. Raises OSError when it does not answer."""
    request = urllib.request.Request(f"{control_url}/{name}", data=json.dumps(link).encode(), method="PUT")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        answer.read()


def main() -> None:
    """Forward until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--route", type=Route.parse, action="append", required=True, metavar="NAME:LISTEN:TARGET")
    options = parser.parse_args()
    asyncio.run(run(options.route, options.control_port))


if __name__ == "__main__":
    main()
