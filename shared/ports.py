"""What the use cases need from the world, as Protocols of one to four methods. Adapters implement them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, Protocol

from shared.contracts import Cloud, MetricWindow, TrainingJob
from shared.promql import METRICS
from shared.values import Document, DocumentKey, HostState, Served, TrainingStatus


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
        """Raises NotFoundError."""
        ...

    def put(self, key: str, body: bytes) -> None: ...

    def list(self, prefix: str) -> Iterable[str]: ...

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

    def artifact(self, job_id: str) -> bytes:
        """The finished job's model.tar.gz. Raises NotFoundError."""
        ...


class ModelHost(Protocol):
    """SageMaker endpoints or Azure ML online endpoints: serves one model version, swaps without dropping."""

    def deploy(self, model_version: str, artifact_uri: str) -> None:
        """Take the next step towards serving the version beside, then instead of, the old one; safe to repeat.

        Raises ModelError (no endpoint could load this artifact), RefusedError (this endpoint will not, for good),
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


class Notifier(Protocol):
    """Pushes a short-lived process's metrics (Pushgateway)."""

    def push(self, name: str, value: float, labels: dict[str, str]) -> None: ...


class CloudServices(NamedTuple):
    """Everything one cloud offers to the use cases."""

    cloud: Cloud
    documents: DocumentStore
    objects: ObjectStore
    queue: JobQueue
    training: TrainingService
    host: ModelHost
