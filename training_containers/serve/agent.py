"""Metrics leave by themselves: a Prometheus agent beside the server scrapes it and writes to a metrics store.

| variable | what |
|---|---|
| OPPORTUNE_METRICS_WRITE_URL | remote write address; without it nothing is sent |
| OPPORTUNE_METRICS_WRITE_AUTH | none (default), basic, bearer, sigv4 (Amazon; AWS_REGION), entra (Azure Monitor) |
| OPPORTUNE_METRICS_WRITE_TOKEN | bearer token, or USER:PASSWORD of basic |
| OPPORTUNE_METRICS_WRITE_CLIENT_ID | entra: client id of a managed identity; without it the SDK looks for one |
| OPPORTUNE_METRICS_SCRAPE_SECONDS | default 15 |
| OPPORTUNE_METRICS_AGENT | the agent's program; default prometheus |

The agent may fail, be missing or die: it is started again, later each time, and serving never notices.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, cast, get_args

from shared.addresses import parted, without_users
from shared.errors import ConfigurationError

log = logging.getLogger(__name__)

Auth = Literal["none", "basic", "bearer", "sigv4", "entra"]

_PREFIX: Final = "OPPORTUNE_METRICS_"
#: pauses before a restart: the first, and the longest
_BACKOFF_S: Final = (1.0, 60.0)
#: Debian's 2.42 sends what it was to sign unsigned; the identities of Azure came with 2.52
_OLDEST: Final = (2, 53)
#: how long samples may still be sent at the end
_FLUSH_S: Final = 5
_LOCK_EVERY_S: Final = 5.0
#: what is not sent yet lies in a folder of a few segments of 10 MB, and for half an hour
_STORAGE: Final = (
    "--storage.agent.wal-segment-size=10MB",
    "--storage.agent.wal-truncate-frequency=5m",
    "--storage.agent.retention.min-time=1m",
    "--storage.agent.retention.max-time=30m",
)


class WriteSettings(NamedTuple):
    """Where metrics go, and who runs what to bring them there."""

    url: str
    auth: Auth
    user: str
    secret: str
    region: str
    client_id: str
    scrape_s: int
    program: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> WriteSettings | None:
        """None when metrics are not to be sent.

        Raises:
            ConfigurationError: a variable is wrong; the message shows no secret.
        """
        address = env.get(f"{_PREFIX}WRITE_URL", "")
        if not address:
            return None
        url, given = parted(address)
        if not re.match(r"https?://[^/\s]+", url):
            raise ConfigurationError(f"{_PREFIX}WRITE_URL", without_users(address), "http(s)://…")
        auth = env.get(f"{_PREFIX}WRITE_AUTH") or ("basic" if given else "none")
        if auth not in get_args(Auth):
            raise ConfigurationError(f"{_PREFIX}WRITE_AUTH", auth, ", ".join(get_args(Auth)))
        user, secret = "", env.get(f"{_PREFIX}WRITE_TOKEN", "")
        if auth == "basic":
            user, colon, password = secret.partition(":")
            user, secret = given if given and not secret else (user, password)
            if not user or not (colon or given):
                raise ConfigurationError(f"{_PREFIX}WRITE_TOKEN", "(hidden)" if colon else None, "USER:PASSWORD")
        if auth == "bearer" and not secret:
            raise ConfigurationError(f"{_PREFIX}WRITE_TOKEN", None, "the token of bearer")
        region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or ""
        if auth == "sigv4" and not region:
            raise ConfigurationError("AWS_REGION", None, "the region of the metrics store, for sigv4")
        scrape = env.get(f"{_PREFIX}SCRAPE_SECONDS", "15")
        if not scrape.isdigit() or not 1 <= int(scrape) <= 300:
            raise ConfigurationError(f"{_PREFIX}SCRAPE_SECONDS", scrape, "a whole number from 1 to 300")
        client_id = env.get(f"{_PREFIX}WRITE_CLIENT_ID", "")
        if not re.fullmatch(r"([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?", client_id):
            raise ConfigurationError(f"{_PREFIX}WRITE_CLIENT_ID", client_id, "a client id, 8-4-4-4-12 hex digits")
        program = env.get(f"{_PREFIX}AGENT") or "prometheus"
        return cls(url, cast("Auth", auth), user, secret, region, client_id, int(scrape), program)


def configuration(settings: WriteSettings, target: str, service: str, cloud: str, instance: str) -> dict[str, Any]:
    """The agent's configuration, which it reads as YAML and so as JSON: scrape `target`, write to the store."""
    write: dict[str, Any] = {
        "url": settings.url,
        "remote_timeout": "10s",
        "queue_config": {"capacity": 5000, "max_shards": 4, "max_samples_per_send": 1000, "max_backoff": "10s"},
        # the agent's own series about the scrape are of no use there
        "write_relabel_configs": [{"source_labels": ["__name__"], "regex": "llm_.*|up", "action": "keep"}],
    }
    if settings.auth == "basic":
        write["basic_auth"] = {"username": settings.user, "password": settings.secret}
    elif settings.auth == "bearer":
        write["authorization"] = {"type": "Bearer", "credentials": settings.secret}
    elif settings.auth == "sigv4":
        write["sigv4"] = {"region": settings.region}
    elif settings.auth == "entra":
        who = {"managed_identity": {"client_id": settings.client_id}} if settings.client_id else {"sdk": {}}
        write["azuread"] = {"cloud": "AzurePublic", **who}
    every = f"{settings.scrape_s}s"
    return {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": f"{min(settings.scrape_s, 10)}s",
            "external_labels": {"service": service, "cloud": cloud},
        },
        "scrape_configs": [
            {
                "job_name": "opportune-serve",
                # every container would be 127.0.0.1 otherwise, and one's samples the other's
                "static_configs": [{"targets": [target], "labels": {"instance": instance}}],
            }
        ],
        "remote_write": [write],
    }


class Agent:
    """The agent's process, and the thread that keeps it alive."""

    def __init__(self, settings: WriteSettings, config: Mapping[str, Any], shared_dir: Path | None = None) -> None:
        """Of the processes that share `shared_dir`, and so answer for each other, one runs an agent."""
        self._settings, self._config, self._shared_dir = settings, config, shared_dir
        self._stop = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._guard = threading.Lock()  # a child is not started after the stop
        self._thread = threading.Thread(target=self._work, name="metrics-agent", daemon=True)

    @property
    def pid(self) -> int | None:
        """The agent's process while it runs."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Run the agent from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Let the agent send what it has, for a few seconds, and end it."""
        with self._guard:
            self._stop.set()
            child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(_FLUSH_S + 2)
            except subprocess.TimeoutExpired:
                child.kill()
        self._thread.join(2)

    def _work(self) -> None:
        try:
            with self._turn() as mine:
                if mine:
                    self._keep_alive()
        except OSError as exc:
            self._warn(f"it cannot run: {exc}")

    @contextlib.contextmanager
    def _turn(self) -> Iterator[bool]:
        """Wait until no other process runs the agent; False when the end comes first."""
        if self._shared_dir is None:
            yield True
            return
        with (self._shared_dir / "metrics-agent.lock").open("w") as lock:
            while not self._stop.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._stop.wait(_LOCK_EVERY_S)
                    continue
                yield True
                return
            yield False

    def _keep_alive(self) -> None:
        pause_s, longest_s = _BACKOFF_S
        while not self._stop.is_set():
            with tempfile.TemporaryDirectory(prefix="opportune-metrics-") as folder:
                reason = self._run(Path(folder))
            if self._stop.wait(0):
                return
            self._warn(f"{reason}; it is started again in {pause_s:g} s")
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def _run(self, folder: Path) -> str:
        """Run the agent until it ends; why it ended."""
        config = folder / "agent.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._config))
        try:
            command = self._command(folder)
            with self._guard:
                if self._stop.is_set():
                    return "stopped"
                self._child = child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=_environment(os.environ),
                )
        except (OSError, subprocess.SubprocessError) as exc:
            return f"{self._settings.program} cannot be started: {getattr(exc, 'strerror', None) or exc}"
        log.info("metrics agent started", extra={"action": "metrics-agent", "pid": child.pid})
        self._log(child.stdout)
        return f"it ended with exit code {child.wait()}"

    def _command(self, folder: Path) -> list[str]:
        program = self._settings.program
        version = _version(program)
        if version < _OLDEST and self._settings.auth in ("sigv4", "entra"):
            self._warn(f"{program} has version {version[0]}.{version[1]}, {self._settings.auth} needs 2.53 or newer")
        command = [
            program,
            "--agent" if version >= (3, 0) else "--enable-feature=agent",
            f"--config.file={folder / 'agent.json'}",
            f"--storage.agent.path={folder / 'wal'}",
            *_STORAGE,
            f"--storage.remote.flush-deadline={_FLUSH_S}s",
            "--web.listen-address=127.0.0.1:0",
            "--log.level=warn",
        ]
        # it must not outlive a server that was killed
        return ["setpriv", "--pdeathsig", "TERM", *command] if shutil.which("setpriv") else command

    def _log(self, output: IO[str] | None) -> None:
        for line in output or ():
            if text := line.strip():
                self._warn(text[:500])

    def _warn(self, text: str) -> None:
        if self._settings.secret:
            text = text.replace(self._settings.secret, "(hidden)")
        log.warning("metrics agent: %s", without_users(text), extra={"action": "metrics-agent"})


def _version(program: str) -> tuple[int, int]:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"version (\d+)\.(\d+)", told.stdout + told.stderr)
    return (int(found[1]), int(found[2])) if found else _OLDEST


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the agent needs to find its identity, none of our own settings; bounded in memory and cores."""
    ours = {name: value for name, value in env.items() if not name.startswith("OPPORTUNE_")}
    return {"GOMEMLIMIT": "96MiB", "GOMAXPROCS": "1", **ours}
