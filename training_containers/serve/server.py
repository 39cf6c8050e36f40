"""HTTP server (waitress) around the app: listens at once, and on stop finishes every request it has taken."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from typing import Any, Final

import waitress
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

from shared.errors import ConfigurationError

log = logging.getLogger(__name__)

#: bodies up to this are read whole, so that the app can refuse them with JSON on a connection that stays usable
_READ_LIMIT_BYTES: Final = 8 * 2**20

#: how long connections are still accepted after the stop
_GRACE_S: Final = 0.25


class _JsonErrorTask(ErrorTask):
    """A request that waitress itself refuses (malformed HTTP, far too large) is answered in JSON too."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"error": f"{error.reason}: {error.body}"}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Task(WSGITask):
    """A stopping process tells its clients to connect elsewhere."""

    def execute(self) -> None:
        if self.channel.server.stopping.is_set():
            self.set_close_on_finish()
        super().execute()


class _Channel(HTTPChannel):
    task_class = _Task
    error_task_class = _JsonErrorTask


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; taken before a model is loaded, so that a taken port is known at once.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    except (OSError, OverflowError) as exc:
        # socket.create_server puts the address into strerror as well
        number = exc.errno if isinstance(exc, OSError) else None
        reason = os.strerror(number) if number is not None and number > 0 else str(exc)
        if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or (number or 0) < 0:  # below 0: a name nobody knows
            raise ConfigurationError("--host", host, "an address of this machine") from exc
        raise ConfigurationError("--port", f"{host}:{port}", f"a free port ({reason.lower()})") from exc


class Server:
    """One listening socket and its request threads. `run` blocks; `stop` may come from a signal or a thread."""

    def __init__(self, app: Flask, listening: socket.socket, threads: int, drain_s: float = 25.0) -> None:
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # the queue has its own gauge
        self._drain_s = drain_s
        self._stopping = threading.Event()
        self._sockets: dict[int, Any] = {}  # file descriptor -> what waitress does with it
        self._server: Any = waitress.create_server(
            app,
            map=self._sockets,
            sockets=[listening],
            threads=threads,
            connection_limit=4096,
            channel_timeout=120,
            max_request_body_size=_READ_LIMIT_BYTES,
            ident="",
            asyncore_use_poll=True,
        )
        self._server.channel_class = _Channel
        self._server.stopping = self._stopping
        self.port: int = listening.getsockname()[1]

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Take no more connections, finish what was taken, then `run` returns."""
        self._stopping.set()
        self._server.pull_trigger()

    def run(self) -> None:
        """Serve until stopped, then until idle (at most `drain_s`)."""
        while not self.stopping:
            self._poll(1.0)
        # a client that connected before the stop, or before it heard of it, is still taken; then the port is given up
        grace = time.monotonic() + _GRACE_S
        while time.monotonic() < grace:
            self._poll(0.05)
        self._server.del_channel()
        self._server.socket.close()
        until = time.monotonic() + self._drain_s
        while self._busy() and time.monotonic() < until:
            self._poll(0.05)
        left = self._busy()
        if left:
            log.error("requests cut off", extra={"action": "stop", "requests": left})
        self._server.task_dispatcher.shutdown()
        self._server.asyncore.close_all(self._sockets)

    def _poll(self, timeout_s: float) -> None:
        self._server.asyncore.loop(timeout=timeout_s, map=self._sockets, use_poll=True, count=1)

    def _busy(self) -> int:
        """Connections with a request in work, half received, or with an answer not yet sent."""
        channels = list(self._server.active_channels.values())
        return sum(bool(c.requests or c.request is not None or c.total_outbufs_len) for c in channels)
