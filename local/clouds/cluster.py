"""Both embedded clouds with everything in them, as one context manager.

    with Cluster(ClusterOptions(work=Path("build/run"), env={"OPPORTUNE_BASE_MODEL": "build/base"})) as cluster:
        print(cluster.doors["aws"], cluster.prometheus_url)

Per cloud: its services (moto, or Azurite and Azure ML), the inference route to its endpoints with a network in front,
and a host that feeds the packaged functions in the cloud's own runtime. Beside them one Prometheus. What is empty at
first is filled as a user would do it: `opportune release MODEL --first`. Leaving the block ends everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from rich.console import Console

from local.clouds.aws import resources as aws
from local.clouds.aws.sdk import ACCOUNT, REGION
from local.clouds.azure.storage import azurite_command, connection_string, make_storage
from local.clouds.faults import PATH as FAULTS
from local.processes import latency_proxy, prometheus
from local.processes.reaper import MARK
from local.processes.supervisor import TAIL_LINES, Health, Service, Supervisor, free_port, http_ok, tcp_ok, tool
from local.runtimes.packages import packaged
from shared.contracts import CLOUDS, Cloud
from shared.errors import OpportuneError
from shared.settings import Settings

ROOT: Final = Path(__file__).parents[2]
#: the Event Grid function of the app, as its subscription names it
EVENT_FUNCTION: Final = "training-events"
#: what a user's own account or proxy settings would change
_FOREIGN: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_CONFIG_FILE")
#: of a user's settings, those that only the serving containers read
_OF_CONTAINERS: Final = ("OPPORTUNE_SERVE_", "OPPORTUNE_METRICS_SCRAPE_")
#: in which an endpoint that is made gets them
_OTHERS: Final = "OPPORTUNE_SERVE_ENVIRONMENT"
READY_S: Final = 120.0


class CommandError(OpportuneError):
    """A command of ours failed on these clouds."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What to start. `env` holds OPPORTUNE_ variables for every process, before those of this process."""

    work: Path  # logs, data and artifacts of the run; those of an earlier run are removed
    env: Mapping[str, str] = field(default_factory=dict)
    console: Console | None = None  # for the status line; standard error when None
    scrape_s: float = 1.0
    visibility_s: int = 10  # until SQS delivers a failed message again


class Cluster:
    """The running clouds. `env` is what every process got."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._work = options.work.resolve()
        self._ports: dict[str, int] = {}
        self._supervisor = Supervisor(self._work / "logs", console=options.console)
        self._stack = contextlib.ExitStack()
        self._packages: dict[Cloud, Path] = {}
        self.env: dict[str, str | None] = {}
        self.doors: dict[Cloud, str] = {}
        #: the version that the run begins with
        self.first_version = ""

    @property
    def log_dir(self) -> Path:
        """One log per process; the containers' below `containers/`."""
        return self._supervisor.log_dir

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus answers."""
        return self._url("prometheus")

    @property
    def runtime_url(self) -> str:
        """The SageMaker runtime, behind the network."""
        return self._url("net-aws")

    @property
    def scoring_url(self) -> str:
        """What the scoring addresses of Azure ML's endpoints begin with, behind the network."""
        return self._url("net-azure")

    @property
    def supervisor(self) -> Supervisor:
        """The processes, for tests and demonstrations of failures."""
        return self._supervisor

    def __enter__(self) -> Cluster:
        self._clean()
        with (self._options.console or Console(stderr=True)).status("packaging the functions"):
            self._packages = {cloud: packaged(cloud) for cloud in CLOUDS}
        with self._stack:
            self._stack.enter_context(self._supervisor)
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raises ServiceFailedError when a process has ended."""
        self._supervisor.check()

    def set_delay(self, cloud: Cloud, delay_s: float) -> None:
        """One-way network delay between the front doors and the endpoint of `cloud`."""
        latency_proxy.change(self._url("network"), cloud, delay_s=delay_s)

    def set_cut(self, cloud: Cloud, cut: bool) -> None:
        """Cut the endpoint of `cloud` off from the front doors, or mend it."""
        latency_proxy.change(self._url("network"), cloud, cut=cut)

    def refuse(self, cloud: Cloud, **faults: Mapping[str, Any]) -> None:
        """What the cloud is to refuse from now on, see local.clouds.faults; nothing ends it."""
        url = f"{self._url('aws' if cloud == 'aws' else 'azureml')}{FAULTS}"
        request = urllib.request.Request(url, json.dumps(faults).encode(), method="PUT")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            answer.read()

    def command(self, *arguments: str) -> str:
        """What `opportune …` prints, asked of these clouds as their user would.

        Raises:
            CommandError: it failed; the message holds its own words.
        """
        env = {**os.environ, **self.env, MARK: self._supervisor.mark}
        told = {name: value for name, value in env.items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=told,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        with (self.log_dir / "commands.log").open("a") as log:
            log.write(f"opportune {' '.join(arguments)}\n{done.stderr}{done.stdout}")
        if done.returncode != 0:
            words = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-TAIL_LINES:])
            raise CommandError(f"opportune {' '.join(arguments)} failed:\n{words}")
        return done.stdout

    def settings(self, cloud: Cloud) -> Settings:
        """The settings that the functions of `cloud` see."""
        known = {name: value for name, value in {**os.environ, **self.env}.items() if value is not None}
        return Settings.from_env({**known, "OPPORTUNE_CLOUD": cloud})

    # --- starting

    def _start(self) -> None:
        names = [
            *("aws", "blob", "queue", "table", "azureml", "prometheus", "network"),
            *(f"{kind}-{cloud}" for kind in ("route", "net", "host") for cloud in CLOUDS),
        ]
        self._ports = dict(zip(names, _ports(len(names)), strict=True))
        self.doors = {cloud: self._url(f"host-{cloud}") for cloud in CLOUDS}
        self.env = self._environment()
        settings = self.settings("aws")

        foundations = self._foundations(settings)
        self._supervisor.start(*foundations)
        aws.make_resources(self._url("aws"), settings, self._options.visibility_s)
        make_storage(
            settings.azure_storage_connection,
            queues=[settings.queue, settings.poison_queue],
            containers=[settings.container],
            tables=[settings.table],
        )
        self.first_version = self._release_first(settings.base_model)
        self._supervisor.start(*(self._host(cloud, settings.slot_seconds) for cloud in CLOUDS))

    def _release_first(self, model: str) -> str:
        """The first model, on both clouds, with endpoints made for it; its version."""
        with (self._options.console or Console(stderr=True)).status("releasing the first model"):
            done = self.command("release", model, "--first", "--json", "--timeout", "5")
        (version,) = {str(one["version"]) for one in json.loads(done)["clouds"].values()}
        return version

    def _foundations(self, settings: Settings) -> list[Service]:
        """What depends on nothing else."""
        p = self._ports
        azurite = azurite_command(tool("azurite"), p["blob"], p["queue"], p["table"])
        routes = [f"--route={cloud}:{p[f'net-{cloud}']}:{p[f'route-{cloud}']}" for cloud in CLOUDS]
        return [
            self._python(
                "aws", "local.clouds.aws.cloud", tcp_ok(p["aws"]), "--port", str(p["aws"]), env=self._cloud_env("aws")
            ),
            Service("azurite", azurite, _all(*(tcp_ok(p[name]) for name in ("blob", "queue", "table"))), self.env),
            self._python(
                "network",
                "local.processes.latency_proxy",
                http_ok(self._url("network")),
                f"--control-port={p['network']}",
                *routes,
            ),
            self._route("aws", "local.clouds.aws.runtime"),
            self._route("azure", "local.clouds.azure.scoring"),
            self._azureml(),
            prometheus.service(
                self._work / "prometheus",
                port=p["prometheus"],
                door_ports=[p[f"host-{cloud}"] for cloud in CLOUDS],
                scrape_s=self._options.scrape_s,
                slot_s=settings.slot_seconds,
            ),
        ]

    def _route(self, cloud: Cloud, module: str) -> Service:
        """The way to the containers of a cloud's endpoints."""
        port = self._ports[f"route-{cloud}"]
        return self._python(f"route-{cloud}", module, tcp_ok(port), f"--port={port}", env=self._cloud_env(cloud))

    def _azureml(self) -> Service:
        port = self._ports["azureml"]
        health = http_ok(f"{self._url('azureml')}/healthz")
        return self._python("azureml", "local.clouds.azure.ml", health, f"--port={port}", env=self._cloud_env("azure"))

    def _host(self, cloud: Cloud, slot_s: float) -> Service:
        """Up once it knows where to send requests, which the first tick publishes."""
        module, port = f"local.clouds.{cloud}.host", self._ports[f"host-{cloud}"]
        env = {"OPPORTUNE_CLOUD": cloud}
        ready, timeout_s = http_ok(f"{self.doors[cloud]}/routes"), READY_S + 2 * slot_s
        arguments = [f"--http-port={port}", f"--package={self._packages[cloud]}"]
        return self._python(f"host-{cloud}", module, ready, *arguments, env=env, timeout_s=timeout_s)

    # --- environment

    def _environment(self) -> dict[str, str | None]:
        """What every process gets on top of this process's environment."""
        given = {**{k: v for k, v in os.environ.items() if k.startswith("OPPORTUNE_")}, **self._options.env}
        scale = Settings.from_env(given).time_scale
        p = self._ports
        # The window in which serving measures quality is of simulated time, too.
        containers = {
            "OPPORTUNE_SERVE_WINDOW_SECONDS": repr(600.0 / scale),
            "OPPORTUNE_SERVE_FEEDBACK_SECONDS": "1",
            "OPPORTUNE_METRICS_SCRAPE_SECONDS": str(max(1, round(self._options.scrape_s))),
            **{name: value for name, value in given.items() if name.startswith(_OF_CONTAINERS) and name != _OTHERS},
        }
        return {
            **dict.fromkeys(_FOREIGN),
            # Two cores serve everybody; a library that takes all of them for itself slows every request down.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **given,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self._url("aws"),
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self._url("net-aws"),
            "OPPORTUNE_AZURE_STORAGE_CONNECTION": connection_string(p["blob"], p["queue"], p["table"]),
            "OPPORTUNE_AZUREML_URL": self._url("azureml"),
            "OPPORTUNE_AZUREML_TOKEN": secrets.token_hex(16),
            "OPPORTUNE_PROMETHEUS_URL": self.prometheus_url,
            # what a deployment names, and what its containers are told by their endpoint
            "OPPORTUNE_SAGEMAKER_IMAGE": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/opportune-training:local",
            "OPPORTUNE_SAGEMAKER_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/opportune-training",
            "OPPORTUNE_AZUREML_IMAGE": "local.azurecr.io/opportune-training:local",
            **dict.fromkeys(
                ("OPPORTUNE_METRICS_WRITE_URL_AWS", "OPPORTUNE_METRICS_WRITE_URL_AZURE"),
                f"{self.prometheus_url}{prometheus.WRITE_PATH}",
            ),
            **dict.fromkeys(("OPPORTUNE_METRICS_WRITE_AUTH_AWS", "OPPORTUNE_METRICS_WRITE_AUTH_AZURE"), "none"),
            _OTHERS: " ".join(f"{name}={value}" for name, value in containers.items()),
            # Only this machine can ask; the observer and the report read every record.
            "OPPORTUNE_OPERATOR_TOKEN": "",
            "OPPORTUNE_OPEN_RECORDS": "true",
            "OPPORTUNE_LOCAL_CONTAINER_LOGS": str(self.log_dir / "containers"),
            # The app's bindings name their settings with these.
            "OPPORTUNE_QUEUE": given.get("OPPORTUNE_QUEUE", Settings().queue),
            "OPPORTUNE_SCHEDULE": "0 * * * * *",
        }

    def _cloud_env(self, cloud: Cloud) -> dict[str, str]:
        """What only the cloud's own services get."""
        hook = f"{self._url('host-azure')}/runtime/webhooks/eventgrid?functionName={EVENT_FUNCTION}"
        return {
            "OPPORTUNE_CLOUD": cloud,
            "OPPORTUNE_LOCAL_WORK": str(self._work / cloud),
            "OPPORTUNE_LOCAL_SCORING_URL": self._url("net-azure"),
            "OPPORTUNE_LOCAL_EVENTGRID_URL": hook,
        }

    def _python(
        self,
        name: str,
        module: str,
        health: Health,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        timeout_s: float = READY_S,
    ) -> Service:
        command = [sys.executable, "-m", module, *arguments]
        return Service(name, command, health, {**self.env, **(env or {})}, cwd=ROOT, start_timeout_s=timeout_s)

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def _clean(self) -> None:
        """Remove what an earlier run in the same folder left, and nothing else."""
        for name in ("logs", "prometheus", *CLOUDS):
            shutil.rmtree(self._work / name, ignore_errors=True)
        self._work.mkdir(parents=True, exist_ok=True)


def _ports(count: int) -> Iterator[int]:
    """Different free ports."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return iter(found)


def _all(*healths: Health) -> Callable[[], bool]:
    return lambda: all(health() for health in healths)
