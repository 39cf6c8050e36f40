"""The one way to a managed endpoint's containers: an HTTP/1.1 proxy that asks for proof, keeps limits and picks one.

What a cloud asks for and how it says no is a `Rules` of that cloud; this is the transport. Connections are kept alive
on both sides. One process and no threads: a few hundred requests a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

from local.processes.routing_table import Target

HEAD_BYTES: Final = 65536
#: a client that says nothing for so long is gone
IDLE_S: Final = 300.0
_CONNECT_S: Final = 2.0


class Request(NamedTuple):
    """What a caller sent; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What goes back."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class RefusedError(Exception):
    """The service's own refusal; no container saw the request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Rules(Protocol):
    """What one cloud's route does beside passing on."""

    max_body: int

    def admit(self, request: Request) -> tuple[str, Target]:
        """The endpoint and which of its targets gets the request. Raises RefusedError."""
        ...

    def passed_on(self, request: Request) -> Mapping[str, str]:
        """The headers that reach the container."""
        ...

    def answered(self, target: Target, answer: Answer) -> Answer:
        """The container's answer as the caller sees it."""
        ...

    def failed(self, target: Target, timed_out: bool) -> Answer:
        """No answer of the container."""
        ...

    def too_large(self) -> Answer:
        """The body is longer than `max_body`."""
        ...

    def too_many(self, target: Target) -> Answer:
        """More at a time than the target's containers may be given."""
        ...


class ManagedRoute:
    """Serves one cloud's inference route."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._idle: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = defaultdict(list)
        self._at: Counter[int] = Counter()  # requests on their way to each port
        self._pending: Counter[tuple[str, str]] = Counter()

    async def run(self, port: int) -> None:
        """Serve until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = await asyncio.start_server(self._client, "127.0.0.1", port, limit=HEAD_BYTES, backlog=1024)
        await stop.wait()
        server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    request = await self._request(reader)
                if isinstance(request, Answer):
                    await _send(writer, request, close=True)
                    return
                answer = await self._handle(request)
                close = request.headers.get("connection", "").lower() == "close"
                await _send(writer, answer, close=close)
                if close:
                    return
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Request | Answer:
        first, headers = await _head(reader)
        method, path, _ = first.split(" ", 2)
        length = headers.get("content-length", "0" if method in ("GET", "HEAD", "DELETE") else "")
        if not length.isdigit():
            return Answer(411, (), b"")
        if int(length) > self._rules.max_body:
            left = min(int(length), 4 * self._rules.max_body)  # a caller that is still sending hears no refusal
            while left > 0 and (chunk := await reader.read(65536)):
                left -= len(chunk)
            return self._rules.too_large()
        return Request(method, path, headers, await reader.readexactly(int(length)))

    async def _handle(self, request: Request) -> Answer:
        try:
            endpoint, target = self._rules.admit(request)
        except RefusedError as exc:
            return exc.answer
        key = (endpoint, target.name)
        # one is being answered per place, and one more may wait for it
        if target.concurrent and self._pending[key] >= 2 * target.concurrent * max(1, len(target.ports)):
            return self._rules.too_many(target)
        if not target.ports:
            return self._rules.failed(target, timed_out=False)
        fewest = min(self._at[port] for port in target.ports)
        port = random.choice([port for port in target.ports if self._at[port] == fewest])
        self._pending[key] += 1
        self._at[port] += 1
        try:
            async with asyncio.timeout(target.timeout_s):
                return self._rules.answered(target, await self._ask(port, target.path, request))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as exc:  # a TimeoutError is an OSError
            return self._rules.failed(target, timed_out=isinstance(exc, TimeoutError))
        finally:
            self._pending[key] -= 1
            self._at[port] -= 1

    async def _ask(self, port: int, path: str, request: Request) -> Answer:
        head = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(request.body)}"]
        head += [f"{name}: {value}" for name, value in self._rules.passed_on(request).items()]
        raw = "\r\n".join([*head, "", ""]).encode("latin-1") + request.body
        while idle := self._idle[port]:
            reader, writer = idle.pop()
            try:
                return await self._exchange(port, reader, writer, raw)
            except (ConnectionError, asyncio.IncompleteReadError) as exc:
                # closed by the container while it lay idle, which is no failure; anything said is
                if isinstance(exc, asyncio.IncompleteReadError) and exc.partial:
                    raise
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=HEAD_BYTES)
        return await self._exchange(port, reader, writer, raw)

    async def _exchange(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes
    ) -> Answer:
        keep = False
        try:
            writer.write(raw)
            await writer.drain()
            first, headers = await _head(reader)
            length = headers.get("content-length", "")
            body = await (reader.readexactly(int(length)) if length.isdigit() else reader.read())
            keep = length.isdigit() and headers.get("connection", "").lower() != "close"
            return Answer(int(first.split(" ")[1]), tuple(headers.items()), body)
        finally:
            if keep:
                self._idle[port].append((reader, writer))
            else:
                writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _send(writer: asyncio.StreamWriter, answer: Answer, *, close: bool) -> None:
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {answer.status} {phrase}", f"Content-Length: {len(answer.body)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += ["Connection: close"] if close else []
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + answer.body)
    with contextlib.suppress(ConnectionError):
        await writer.drain()


def by_weight(targets: Sequence[Target]) -> Target | None:
    """One of them, each with its share of the traffic; None when none takes any."""
    weights = [target.weight for target in targets]
    return random.choices(targets, weights)[0] if sum(weights) > 0 else None
