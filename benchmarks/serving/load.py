"""Serving processes under measurement, and the clients that load them."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

from shared.headers import TIMEOUT_HEADER


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def call(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
        """(status, JSON body)."""
        self._connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        reply = self._connection.getresponse()
        raw = reply.read()
        return reply.status, json.loads(raw) if raw else {}

    def ask(self, question: str, tokens: int) -> float:
        """Seconds one answer took."""
        begin = time.perf_counter()
        body = {"question": question, "max_new_tokens": tokens}
        status, reply = self.call("POST", "/predict", body, {TIMEOUT_HEADER: "60"})
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {reply}")
        return time.perf_counter() - begin

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()


class Server:
    """A serving process and what is measured of it."""

    def __init__(self, command: Sequence[str], threads: int, env: dict[str, str] | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)} | (env or {}),
        )
        self._wait(command)
        self.cold_start_s = time.perf_counter() - begin
        self.handle = psutil.Process(self.process.pid)

    def _wait(self, command: Sequence[str]) -> None:
        """Until the first answer."""
        while True:
            client = Client(self.port)
            try:
                client.ask("what is it?", 16)
                return
            except (OSError, http.client.HTTPException, RuntimeError):
                if self.process.poll() is not None:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.01)
            finally:
                client.close()

    def cpu_s(self) -> float:
        """CPU time of the process so far."""
        return float(sum(self.handle.cpu_times()[:2]))

    def peak_rss_mb(self) -> float:
        """Most memory that was ever resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self) -> None:
        """SIGTERM, then wait."""
        self.process.terminate()
        self.process.wait(60)


@dataclass(frozen=True)
class Round:
    """One round of one server: a client alone, then all of them."""

    alone_s: list[float]
    requests_per_s: float
    cpu_s_per_request: float


def measure(server: Server, questions: Sequence[str], clients: int, tokens: int, alone: int) -> Round:
    """Ask `alone` questions one after the other, then all of them from `clients` clients."""
    single = Client(server.port)
    single.ask(questions[-1], tokens)
    alone_s = [single.ask(question, tokens) for question in questions[:alone]]
    single.close()
    todo, lock = iter(questions), threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        connection = Client(server.port)
        try:
            while True:
                with lock:
                    question = next(todo, None)
                if question is None:
                    return
                connection.ask(question, tokens)
        except (OSError, http.client.HTTPException, RuntimeError) as exc:
            failures.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begin, cpu = time.perf_counter(), server.cpu_s()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begin
    if failures:
        raise SystemExit(f"a request failed: {failures[0]!r}")
    return Round(alone_s, len(questions) / wall, (server.cpu_s() - cpu) / len(questions))


class Answer(NamedTuple):
    """What one request got, and when, in POSIX seconds."""

    begun_s: float
    ended_s: float
    version: str
    question: str
    text: str


class Callers:
    """Clients that ask the same few questions on and on, each on a connection of its own."""

    def __init__(self, port: int, questions: Sequence[str], clients: int, tokens: int, pause_s: float = 0.0) -> None:
        self.answers: list[Answer] = []
        self.failures: list[tuple[float, str]] = []  # when it began, what went wrong
        self._port, self._questions, self._tokens, self._pause_s = port, list(questions), tokens, pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: str, since_s: float, within_s: float) -> float:
        """When the first request that began after `since_s` was answered by `version`.

        Raises:
            SystemExit: none was.
        """
        seen, until = 0, time.monotonic() + within_s
        while time.monotonic() < until:
            for answer in self.answers[seen:]:
                seen += 1
                if answer.version == version and answer.begun_s >= since_s:
                    return answer.ended_s
            time.sleep(0.01)
        raise SystemExit(f"{version} did not answer within {within_s:g} s; failures: {self.failures[-3:]}")

    def _ask(self, number: int) -> None:
        connection = Client(self._port)
        at = number % len(self._questions)
        for question in itertools.cycle(self._questions[at:] + self._questions[:at]):
            if self._stop.wait(self._pause_s):
                return
            begun_s = time.time()
            body = {"question": question, "max_new_tokens": self._tokens}
            try:
                status, reply = connection.call("POST", "/predict", body, {TIMEOUT_HEADER: "60"})
            except (OSError, http.client.HTTPException) as exc:
                self.failures.append((begun_s, repr(exc)))
                connection = Client(self._port)
                continue
            if status == 200:
                found = Answer(begun_s, time.time(), str(reply["model_version"]), question, str(reply["answer"]))
                self.answers.append(found)
            else:
                self.failures.append((begun_s, f"HTTP {status}: {reply}"))
