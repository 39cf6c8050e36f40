"""What the use cases need from the world, as Protocols of one to four methods. Adapters implement them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, Protocol

from shared.contracts import Cloud, MetricWindow, TrainingJob
from shared.promql import METRICS
from shared.values import Document, DocumentKey, HostState, ObjectEntry, Served, TrainingStatus


class Clock(Protocol):
    """Injected time, POSIX seconds."""

    def __call__(self) -> float: ...


class MetricsSource(Protocol):
    """Live metrics of a service."""

    def window(self, start_s: float, end_s: float, step_s: float, names: Collection[str] = METRICS) -> MetricWindow:
        """The metrics of these names; one without samples has an empty series. Raises MetricsError."""
        ...

    def explained(self, window: MetricWindow) -> MetricWindow:
        """The window, with why a metric in it has no samples where one has none. Raises nothing."""
        ...

    def served(self, now_s: float, step_s: float) -> dict[Cloud, Served]:
        """Each cloud that has samples. Raises MetricsError when the metrics cannot be had."""
        ...


class JobQueue(Protocol):
    """A managed queue of training jobs on one cloud."""

    def enqueue(self, job: TrainingJob) -> None: ...

    def dead_letter(self, body: str, reason: str) -> None:
        """Keep a message that cannot be handled, with its reason."""
        ...

    def depth(self) -> int:
        """About how many jobs wait."""
        ...

    def dead_letters(self, hide_s: int = 60) -> list[DeadLetter]:
        """The messages kept, hidden from other readers for `hide_s`."""
        ...

    def dead_letter_count(self) -> int:
        """About how many messages are kept, those that somebody hides right now among them."""
        ...

    def release(self, letter: DeadLetter) -> None:
        """Show a message that `dead_letters` hid to other readers again, now."""
        ...

    def forget(self, letter: DeadLetter) -> None:
        """Remove a message that was kept."""
        ...


class DeadLetter(NamedTuple):
    """A message that could not be handled; `receipt` is what its queue needs to remove it."""

    body: str
    reason: str
    receipt: str


class DocumentStore(Protocol):
    """Small documents with conditional writes (DynamoDB, Azure Table). Kinds: see shared.records."""

    def get(self, kind: str, key: str) -> Document | None: ...

    def get_many(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Document]:
        """Those of at most 100 documents that exist, in one request where the service has one for it."""
        ...

    def put(self, kind: str, key: str, body: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write and return the new etag. Raises ConflictError when the condition does not hold."""
        ...

    def query(self, kind: str, *, since: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Documents of a kind with key >= since, ascending by key, at most `limit`."""
        ...


class ObjectStore(Protocol):
    """Objects by key in the service's bucket (S3) or container (Blob)."""

    def get(self, key: str) -> bytes:
        """A small object. Raises NotFoundError."""
        ...

    def put(self, key: str, body: bytes) -> None: ...

    def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Document | None:
        """A small object with its tag; None when it still has the tag `if_none_match`. Raises NotFoundError."""
        ...

    def put_tagged(self, key: str, body: bytes, *, if_etag: str | None) -> str:
        """Replace an object as it was read (None: absent), its new tag. Raises ConflictError."""
        ...

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """What lies under the prefix, ascending by key, listed page by page as it is asked for."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on. Raises NotFoundError."""
        ...

    def copy(self, source_key: str, key: str) -> None:
        """Copy an object inside this store, without its bytes passing through here. Raises NotFoundError."""
        ...

    def parts(self, key: str) -> dict[int, int]:
        """Of an upload of `key` that is not finished: number of each part, from 1, and its size."""
        ...

    def put_part(self, key: str, number: int, body: bytes) -> None:
        """One part of an upload, at least 5 MiB but for the last; the first begins it; repeating is harmless."""
        ...

    def finish_parts(self, key: str, count: int) -> None:
        """Make the object of its parts 1 to `count`; harmless when it is made already."""
        ...

    def uri(self, key: str) -> str:
        """The address a training service understands."""
        ...


class TrainingService(Protocol):
    """SageMaker training or Azure ML command jobs."""

    def start(self, job: TrainingJob, data_uri: str, parent_uri: str | None) -> None:
        """Start the job; a second start of the same job_id is harmless.

        Raises RefusedError (for good), CapacityError (no machine now) or UnavailableError (try again).
        """
        ...

    def status(self, job_id: str) -> TrainingStatus | None:
        """None when the service does not know the job."""
        ...

    def stop(self, job_id: str) -> None: ...

    def model_prefix(self, job_id: str) -> str:
        """Where in this cloud's object store the finished job left its model's files. Raises NotFoundError."""
        ...


class ModelHost(Protocol):
    """What one cloud's endpoint serves: its containers follow the release document in their store."""

    def deploy(self, model_version: str) -> None:
        """Make `model_version` the stable one of the release; safe to repeat. Its files must be there already.

        Raises ModelError (no instance could load this model), RefusedError (these instances will not, for good),
        UnavailableError (try again).
        """
        ...

    def state(self) -> HostState:
        """The endpoint now. Raises UnavailableError when that cannot be known."""
        ...


class InferenceClient(Protocol):
    """Sends one request to one endpoint."""

    def invoke(self, url: str, body: dict[str, Any], timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        """Raises UnavailableError on timeout, refusal or 5xx, InvalidInputError on 4xx."""
        ...


class CloudServices(NamedTuple):
    """Everything one cloud offers to the use cases."""

    cloud: Cloud
    documents: DocumentStore
    objects: ObjectStore
    queue: JobQueue
    training: TrainingService
    host: ModelHost
