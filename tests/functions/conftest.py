"""Two clouds in memory, a deps object per cloud, and what a service leaves behind: metrics, feedback, artifacts."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from functions.clouds import Deps
from functions.retraining.job_message import training_job
from policy.decide import load_policy
from policy.policies import Policy
from shared.adapters.released import ReleasedHost
from shared.contracts import (
    CLOUDS,
    Action,
    Cloud,
    Decision,
    FeedbackPair,
    Metrics,
    MetricWindow,
    ModelManifest,
    Series,
    TrainingJob,
    encode,
)
from shared.errors import MetricsError, NoSamplesError
from shared.ports import CloudServices
from shared.settings import Settings
from shared.state import State
from shared.values import HostState, Served
from tests.fakes import (
    MemoryFleet,
    MemoryHost,
    MemoryMetrics,
    MemoryNotifier,
    MemoryObjects,
    MemoryQueue,
    MemoryTraining,
    memory_cloud,
)

NOW = 1_800_000_000.0  # a slot boundary
JOB = "qa-20270115t080000"


def metric_window(now_s: float, quality: float = 0.5) -> MetricWindow:
    """Thirty healthy slots up to now."""
    times = tuple(now_s - 60.0 * back for back in range(30, -1, -1))
    values = {"cpu": 0.4, "memory": 0.5, "request_rate": 4.0, "latency": 0.2, "bleu": quality, "accuracy": quality}
    series = {name: Series(times, (value,) * len(times)) for name, value in values.items()}
    return MetricWindow(service="qa", start_s=times[0], end_s=now_s, step_s=60.0, series=series)


def metrics_of(quality: float, examples: int = 40) -> Metrics:
    return Metrics(bleu1=quality, exact_match=quality, f1=quality, rouge_l=quality, examples=examples)


@dataclass
class World:
    """Both clouds and everything around them."""

    clouds: dict[Cloud, CloudServices]
    settings: Settings
    notifier: MemoryNotifier = field(default_factory=MemoryNotifier)
    metrics: MetricWindow | MetricsError | None = None
    served: dict[Cloud, Served] = field(default_factory=dict)
    policy: Policy = field(default_factory=lambda: load_policy("always"))
    parallel: bool = True
    #: each cloud's instances, where they follow release documents
    fleets: dict[Cloud, MemoryFleet] = field(default_factory=dict)

    def deps(self, cloud: Cloud = "aws", clouds: dict[Cloud, CloudServices] | None = None, **changes: Any) -> Deps:
        settings = msgspec.structs.replace(self.settings, cloud=cloud, **changes)
        answer = self.metrics if self.metrics is not None else metric_window(NOW)
        return Deps(
            settings=settings,
            clouds=clouds or self.clouds,
            metrics=lambda: MemoryMetrics(answer, self.served),
            parallel=self.parallel,
            policy=lambda: self.policy,
            notifier=self.notifier,
        )

    def state(self, cloud: Cloud = "aws") -> State:
        return State(self.clouds[cloud].documents)

    def queue(self, cloud: Cloud = "aws") -> MemoryQueue:
        queue = self.clouds[cloud].queue
        assert isinstance(queue, MemoryQueue)
        return queue

    def training(self, cloud: Cloud = "aws") -> MemoryTraining:
        training = self.clouds[cloud].training
        assert isinstance(training, MemoryTraining)
        return training

    def host(self, cloud: Cloud = "aws") -> MemoryHost:
        host = self.clouds[cloud].host
        assert isinstance(host, MemoryHost)
        return host

    def serving(self, cloud: Cloud) -> str | None:
        """What the cloud's endpoint answers with."""
        return self.fleets[cloud].version if self.fleets else self.host(cloud).version

    def ported(self, wrapped: Callable[[Cloud, str, Any], Any]) -> dict[Cloud, CloudServices]:
        """The clouds with each port wrapped, the stores under the hosts too."""
        made: dict[Cloud, CloudServices] = {}
        for cloud, services in self.clouds.items():
            ports = {name: port for name, port in services._asdict().items() if name != "cloud"}
            if self.fleets:
                objects = wrapped(cloud, "objects", ports["objects"])
                ports["host"] = ReleasedHost("qa", self.fleets[cloud], objects, self.fleets[cloud].clock)
            made[cloud] = CloudServices(cloud, **{name: wrapped(cloud, name, port) for name, port in ports.items()})
        return made

    def decided(self, cloud: Cloud = "aws", *, job_id: str = JOB, parent: str = "base", **changes: Any) -> TrainingJob:
        """The job that a decision recorded in `cloud` asks for there; further fields are the decision's."""
        plain: dict[str, Any] = {
            "decision_id": f"decision-{job_id}",
            "job_id": job_id,
            "slot_s": NOW,
            "service": "qa",
        } | changes
        action = Action.for_cloud(cloud)
        decision = Decision(
            decided_by=cloud,
            mode="act",
            action=action,
            wanted=action,
            probabilities=(0.0, 0.0, 0.0),
            guardrails=(),
            observation={},
            attributions={},
            policy="always",
            policy_sha256="",
            trace_id="a" * 32,
            reason="",
            **plain,
        )
        self.clouds[cloud].documents.put("decision", decision.decision_id, encode(decision))
        return training_job(msgspec.structs.replace(self.settings, cloud=cloud), decision, cloud, parent)

    def message(self, cloud: Cloud = "aws", **changes: Any) -> str:
        """The message of that job."""
        return encode(self.decided(cloud, **changes)).decode()

    def label(self, cloud: Cloud, first: int, count: int, received_s: float = NOW - 600) -> None:
        """Write `count` labelled pairs the way a serving container does."""
        pairs = [
            FeedbackPair(question=f"question {n}", answers=(f"answer {n}",), received_s=received_s + n)
            for n in range(first, first + count)
        ]
        body = b"".join(encode(pair) + b"\n" for pair in pairs)
        self.clouds[cloud].objects.put(f"feedback/{cloud}/20270115T075500-{first}.jsonl", body)


@pytest.fixture
def world() -> World:
    """A service with labelled pairs on both clouds and the base model serving."""
    made = World({"aws": memory_cloud("aws"), "azure": memory_cloud("azure")}, Settings(min_new_pairs=4))
    made.label("aws", 0, 10)
    made.label("azure", 10, 10)
    return made


def with_fleets(world: World, clock: Callable[[], float]) -> World:
    """The same with fresh clouds, whose endpoints are instances that follow the release documents."""
    clouds: dict[Cloud, CloudServices] = {}
    fleets: dict[Cloud, MemoryFleet] = {}
    for cloud in CLOUDS:
        services = memory_cloud(cloud, clock)
        assert isinstance(services.objects, MemoryObjects)
        fleets[cloud] = MemoryFleet(services.objects, clock, cloud=cloud, managed=HostState(None, f"http://{cloud}"))
        host = ReleasedHost("qa", fleets[cloud], services.objects, clock)
        clouds[cloud] = services._replace(host=host)
    made = dataclasses.replace(world, clouds=clouds, fleets=fleets)
    made.label("aws", 0, 10)
    made.label("azure", 10, 10)
    return made


@pytest.fixture
def no_metrics() -> MetricsError:
    return NoSamplesError("avg(llm_bleu)")


@pytest.fixture
def artifact(a_manifest: Callable[..., ModelManifest]) -> Callable[..., dict[str, bytes]]:
    """The files of a model whose candidate scores 0.8 against the serving model's 0.5, unless told otherwise."""

    def make(job_id: str, **changes: Any) -> dict[str, bytes]:
        weights = b"weights of " + job_id.encode()
        plain = {
            "model_version": "m" + hashlib.sha256(job_id.encode()).hexdigest()[:10],
            "job_id": job_id,
            "data_end_s": NOW,
            "candidate": metrics_of(0.8),
            "serving": metrics_of(0.5),
            "duration_s": 60.0,
            "files": {"model.safetensors": hashlib.sha256(weights).hexdigest()},
        }
        return {"model.safetensors": weights, "manifest.json": encode(a_manifest(**plain | changes))}

    return make


@pytest.fixture
def metrics_with() -> Callable[..., Metrics]:
    return metrics_of


@pytest.fixture
def now() -> float:
    return NOW


@pytest.fixture
def job(a_job: Callable[..., TrainingJob]) -> Callable[..., TrainingJob]:
    """The content of the message of a job that was decided now."""
    return functools.partial(
        a_job,
        job_id="qa-20270115t080000",
        slot_s=NOW,
        trace_id="a" * 32,
        decision_id="decision-qa-20270115t080000",
        data_end_s=NOW,
        hyperparameters={"job_id": "qa-20270115t080000"},
        cost_ceiling_usd=10.0,
        deadline_s=3600.0,
    )


class CrashError(BaseException):
    """The function's process died here: nothing can catch that."""


@dataclass
class Fuse:
    """Lets `calls` port calls through, then crashes: instead of the next call, or right after it."""

    calls: int
    after: bool
    blown: bool = False

    def guard(self, port: Any) -> Any:
        fuse = self

        class Guarded:
            def __getattr__(self, name: str) -> Any:
                real = getattr(port, name)

                def call(*args: Any, **kwargs: Any) -> Any:
                    fuse.calls -= 1
                    if fuse.calls == -1 and not fuse.after:
                        fuse.blown = True
                        raise CrashError(name)
                    dies_after = fuse.calls == -1
                    try:
                        return real(*args, **kwargs)
                    finally:
                        if dies_after:
                            fuse.blown = True
                            raise CrashError(name)

                return call

        return Guarded()

    def clouds(self, world: World) -> dict[Cloud, CloudServices]:
        """The world's clouds, every port call of which goes through the fuse."""
        return world.ported(lambda cloud, name, port: self.guard(port))


@pytest.fixture
def crash_everywhere() -> Callable[..., int]:
    """Run a use case again and again, each time in a fresh world that crashes one port call later, then repair it."""

    def sweep(
        fresh: Callable[[], World],
        act: Callable[[World, Deps], Any],
        check: Callable[[World], None],
        cloud: Cloud = "aws",
    ) -> int:
        crashes = 0
        for after in (False, True):
            for calls in range(200):
                world, fuse = fresh(), Fuse(calls, after)
                world.parallel = False  # after a crash nobody else calls anything
                try:
                    act(world, world.deps(cloud, fuse.clouds(world)))
                except CrashError:
                    act(world, world.deps(cloud))  # the redelivery
                assert fuse.blown or fuse.calls >= 0, "a crash was swallowed"
                check(world)
                if not fuse.blown:
                    break
                crashes += 1
            else:
                pytest.fail("the use case never ran to its end")
        return crashes

    return sweep
