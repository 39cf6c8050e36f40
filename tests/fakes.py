"""Every port in memory: what tests and dry runs use. Real code, held to the same contract as the clouds."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.contracts import (
    Cloud,
    InstanceStatus,
    InstanceVersion,
    MetricWindow,
    ModelManifest,
    Release,
    TrainingJob,
    decode,
    encode,
)
from shared.errors import ConflictError, ContractError, MetricsError, NotFoundError
from shared.ports import Clock, CloudServices, DeadLetter, ObjectStore
from shared.promql import METRICS
from shared.releases import instance_key, manifest_key, model_folder, release_key
from shared.values import Document, DocumentKey, HostState, ObjectEntry, Served, TrainingStatus


class MemoryDocuments:
    """DocumentStore in a dictionary."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], Document] = {}
        self._etags = itertools.count(1)
        self._lock = threading.Lock()

    def get(self, kind: str, key: str) -> Document | None:
        """The document or None."""
        return self._documents.get((kind, key))

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of the documents that exist."""
        return {key: self._documents[key] for key in keys if key in self._documents}

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write under the condition; see the port."""
        with self._lock:
            found = self._documents.get((kind, key))
            if if_absent and found is not None:
                raise ConflictError(f"{kind} {key}: somebody else was first")
            if if_etag is not None and (found is None or found.etag != if_etag):
                raise ConflictError(f"{kind} {key}: somebody else was first")
            etag = str(next(self._etags))
            self._documents[kind, key] = Document(body, etag)
            return etag

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Ascending by key from `since`."""
        with self._lock:
            found = [(key, doc.body) for (of, key), doc in self._documents.items() if of == kind and key >= since]
        return sorted(found)[:limit]


class MemoryObjects:
    """ObjectStore in a dictionary."""

    def __init__(self, name: str = "memory", clock: Clock = time.time) -> None:
        self._name = name
        self._clock = clock
        self._objects: dict[str, tuple[bytes, str, float]] = {}  # content, tag, when it was written
        self._parts: dict[str, dict[int, bytes]] = {}
        self._tags = itertools.count(1)
        self._lock = threading.Lock()

    def _found(self, key: str) -> tuple[bytes, str, float]:
        try:
            return self._objects[key]
        except KeyError as exc:
            raise NotFoundError(f"{self.uri(key)} does not exist") from exc

    def get(self, key: str) -> bytes:
        """The object's bytes; NotFoundError when there is none."""
        return self._found(key)[0]

    def put(self, key: str, body: bytes) -> None:
        """Write or replace."""
        self._objects[key] = body, str(next(self._tags)), self._clock()

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None:
        """The object and its tag, or None."""
        body, tag, _ = self._found(key)
        return None if tag == if_none_match else Document(body, tag)

    def put_tagged(self, key: str, body: bytes, *, if_etag: str | None) -> str:
        """Replace it as it was read, or create it."""
        with self._lock:
            there = self._objects[key][1] if key in self._objects else None
            if there != if_etag:
                raise ConflictError(f"{self.uri(key)}: somebody else was first")
            self.put(key, body)
            return self._objects[key][1]

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        """What lies under the prefix, ascending."""
        for key in sorted(key for key in self._objects if key.startswith(prefix)):
            body, _, written_s = self._objects[key]
            yield ObjectEntry(key, len(body), written_s)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on."""
        return self.get(key)[start : start + length]

    def copy(self, source_key: str, key: str) -> None:
        """The same bytes under another key."""
        self.put(key, self.get(source_key))

    def parts(self, key: str) -> dict[int, int]:
        """Number and size of the parts that are there."""
        return {number: len(body) for number, body in self._parts.get(key, {}).items()}

    def put_part(self, key: str, number: int, body: bytes) -> None:
        """Keep one part."""
        self._parts.setdefault(key, {})[number] = body

    def finish_parts(self, key: str, count: int) -> None:
        """Put the parts together."""
        there = self._parts.get(key, {})
        missing = next((number for number in range(1, count + 1) if number not in there), None)
        if missing is None:
            self.put(key, b"".join(there[number] for number in range(1, count + 1)))
            del self._parts[key]
        elif key not in self._objects:
            raise NotFoundError(f"{self.uri(key)}: part {missing} of {count} does not exist")

    def uri(self, key: str) -> str:
        """memory://name/key."""
        return f"memory://{self._name}/{key}"


@dataclass
class MemoryQueue:
    """JobQueue in two lists."""

    messages: list[str] = field(default_factory=list)
    dead: list[tuple[str, str]] = field(default_factory=list)
    _hidden: dict[tuple[str, str], float] = field(default_factory=dict)  # a dead message -> until when, monotonic

    def enqueue(self, job: TrainingJob) -> None:
        """Append the encoded job."""
        self.messages.append(encode(job).decode())

    def dead_letter(self, body: str, reason: str) -> None:
        """Append body and reason."""
        self.dead.append((body, reason))

    def depth(self) -> int:
        """How many wait."""
        return len(self.messages)

    def dead_letters(self, hide_s: int = 60) -> list[DeadLetter]:
        """What was kept and nobody hides."""
        now_s = time.monotonic()
        seen = [message for message in self.dead if self._hidden.get(message, now_s) <= now_s]
        self._hidden |= dict.fromkeys(seen, now_s + hide_s)
        return [DeadLetter(body, reason, body) for body, reason in seen]

    def dead_letter_count(self) -> int:
        """How many were kept."""
        return len(self.dead)

    def release(self, letter: DeadLetter) -> None:
        """Show it again."""
        self._hidden.pop((letter.body, letter.reason), None)

    def forget(self, letter: DeadLetter) -> None:
        """Remove one."""
        self.dead.remove((letter.body, letter.reason))


@dataclass
class MemoryTraining:
    """TrainingService that runs nothing: `finish` says how a job ended."""

    objects: MemoryObjects = field(default_factory=MemoryObjects)
    started: list[tuple[TrainingJob, str, str | None]] = field(default_factory=list)
    _statuses: dict[str, TrainingStatus] = field(default_factory=dict)

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Remember the job; a second start of the same job_id does nothing."""
        if job.job_id not in self._statuses:
            self.started.append((job, data_uri, parent_uri))
            self._statuses[job.job_id] = TrainingStatus("running", "", None, None)

    def finish(
        self,
        job_id: str,
        *,
        state: str = "succeeded",
        artifact: Mapping[str, bytes] | None = None,
        reason: str = "",
        started_s: float | None = None,
        finished_s: float | None = None,
    ) -> None:
        """End the job the way a training service would."""
        self._statuses[job_id] = TrainingStatus(state, reason, started_s, finished_s)
        for name, body in (artifact or {}).items():
            self.objects.put(f"jobs/{job_id}/model/{name}", body)

    def status(self, job_id: str) -> TrainingStatus | None:
        """What `start` and `finish` left."""
        return self._statuses.get(job_id)

    def stop(self, job_id: str) -> None:
        """The job becomes `stopped`."""
        self.finish(job_id, state="stopped", reason="stopped on request")

    def model_prefix(self, job_id: str) -> str:
        """Where `finish` put the files it was given."""
        if not any(self.objects.entries(f"jobs/{job_id}/model/")):
            raise NotFoundError(f"job {job_id} has no model artifact")
        return f"jobs/{job_id}/model/"


@dataclass
class MemoryHost:
    """ModelHost that swaps after `loading_calls` further calls of `deploy`, as a real one takes time to load."""

    url: str = "http://memory"
    version: str | None = "base"
    loading_calls: int = 0
    deployed: list[str] = field(default_factory=list)
    _waiting: dict[str, int] = field(default_factory=dict)

    def deploy(self, model_version: str) -> None:
        """Swap now, or after the loading calls."""
        self.deployed.append(model_version)
        left = self._waiting.get(model_version, self.loading_calls)
        self._waiting[model_version] = left - 1
        if left <= 0:
            self.version = model_version

    def state(self) -> HostState:
        """The version that answers, and its address."""
        return HostState(self.version, self.url)


@dataclass
class MemoryFleet:
    """An endpoint's management, and its instances: whenever it is asked after, each follows the release document."""

    objects: ObjectStore
    clock: Clock = time.time
    service: str = "qa"
    cloud: Cloud = "aws"
    instances: list[str] = field(default_factory=lambda: ["one", "two"])
    #: what management says
    managed: HostState = field(default_factory=lambda: HostState(None, "http://fleet"))
    #: (instance, version) that it cannot load -> why
    cannot: dict[tuple[str, str], str] = field(default_factory=dict)
    #: instances that still load whatever is new
    slow: set[str] = field(default_factory=set)
    #: what each answers with; "base" came with the image
    active: dict[str, str | None] = field(default_factory=dict)

    def state(self) -> HostState:
        """What management says, after every instance has looked."""
        for instance in self.instances:
            self._follow(instance)
        return self.managed

    @property
    def version(self) -> str | None:
        """What all of them answer with; None while they differ."""
        versions = {self.active.get(instance, "base") for instance in self.instances}
        return versions.pop() if len(versions) == 1 else None

    def _follow(self, instance: str) -> None:
        active, told, release = self.active.get(instance, "base"), [], None
        with contextlib.suppress(NotFoundError, ContractError):  # unreadable: it goes on with what it has
            release = decode(Release, self.objects.get(release_key(self.service)))
        stable = release.of("stable") if release else None
        if stable is not None and stable != active:
            why = self.cannot.get((instance, stable)) or self._missing(stable)
            state = "failed" if why else "loading" if instance in self.slow else "active"
            told = [InstanceVersion(model_version=stable, state=state, reason=why)]  # type: ignore[arg-type]
            active = stable if state == "active" else active
        self.active[instance] = active
        status = InstanceStatus(
            service=self.service,
            cloud=self.cloud,
            instance=instance,
            told_s=self.clock(),
            revision=release.revision if release else 0,
            active=active,
            versions=tuple(told),
        )
        self.objects.put(instance_key(self.service, instance), encode(status))

    def _missing(self, version: str) -> str:
        """Why the version's files are not what their manifest says, or ""."""
        if version == "base":
            return ""
        try:
            manifest = decode(ModelManifest, self.objects.get(manifest_key(version)))
            for name, sha256 in manifest.files.items():
                if hashlib.sha256(self.objects.get(f"{model_folder(version)}{name}")).hexdigest() != sha256:
                    return f"{name}: sha256 differs; refusing to load it"
        except NotFoundError as exc:
            return str(exc)
        return ""


@dataclass
class MemoryMetrics:
    """MetricsSource that answers with a window, or raises what it is given."""

    answer: MetricWindow | MetricsError
    by_cloud: dict[Cloud, Served] = field(default_factory=dict)

    def window(self, start_s: float, end_s: float, step_s: float, names: Collection[str] = METRICS) -> MetricWindow:
        """The prepared answer."""
        if isinstance(self.answer, MetricsError):
            raise self.answer
        return self.answer

    def explained(self, window: MetricWindow) -> MetricWindow:
        """As it is."""
        return window

    def served(self, now_s: float, step_s: float) -> dict[Cloud, Served]:
        """The prepared answer."""
        return self.by_cloud


@dataclass
class MemoryInference:
    """InferenceClient that calls a function instead of a network."""

    answer: Callable[[str, dict[str, Any], float, dict[str, str]], dict[str, Any]]
    calls: list[str] = field(default_factory=list)

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """Record the address and call the function."""
        self.calls.append(url)
        return self.answer(url, body, timeout_s, headers)


def memory_cloud(cloud: Cloud, clock: Clock = time.time) -> CloudServices:
    """One cloud, all in memory."""
    objects = MemoryObjects(cloud, clock)
    return CloudServices(
        cloud=cloud,
        documents=MemoryDocuments(),
        objects=objects,
        queue=MemoryQueue(),
        training=MemoryTraining(objects),
        host=MemoryHost(url=f"http://{cloud}.memory"),
    )
