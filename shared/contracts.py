"""What travels between the parts: frozen, typed, versioned, validated on entry.

Unknown fields are ignored, so that an older reader survives a newer writer; an unknown *version* is refused
(`UnknownVersionError`), so that a message whose meaning changed is kept in the dead-letter queue, not misread.
Times are POSIX seconds (UTC), money is US dollars, units stand in the names.
"""

from __future__ import annotations

import datetime as dt
import enum
import secrets
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from shared.errors import ContractError, UnknownVersionError

CONTRACT_VERSION: Final = 1

Cloud = Literal["aws", "azure"]
CLOUDS: Final[tuple[Cloud, Cloud]] = ("aws", "azure")

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
#: a service's name is the beginning of its jobs' names, which SageMaker limits to 63 characters
LONGEST_SERVICE: Final = 47
ServiceName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=LONGEST_SERVICE)]
#: ids are keys of documents; DynamoDB and Azure Table both limit a key to about 1,000 bytes
LONGEST_ID: Final = 128
Id = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]
TraceId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]


class Action(enum.IntEnum):
    """What the policy may choose; the numbers are the policy's outputs."""

    HOLD = 0
    RETRAIN_AWS = 1
    RETRAIN_AZURE = 2

    @property
    def cloud(self) -> Cloud | None:
        """The cloud that trains, or None for hold."""
        return None if self is Action.HOLD else CLOUDS[self - 1]

    @staticmethod
    def for_cloud(cloud: Cloud) -> Action:
        """The retrain action of a cloud."""
        return Action(CLOUDS.index(cloud) + 1)


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every contract: carries the version its writer knew."""

    version: int = CONTRACT_VERSION


class Series(msgspec.Struct, frozen=True):
    """One metric over time. A missing sample is absent, never zero."""

    timestamps_s: tuple[float, ...]
    values: tuple[float, ...]


class MetricWindow(Contract, frozen=True, kw_only=True):
    """The scraped metrics of one service over [start_s, end_s], per metric name (see shared.promql)."""

    service: Name
    start_s: float
    end_s: float
    step_s: Annotated[float, Meta(gt=0)]
    series: dict[str, Series]
    # metric without samples at the end -> why, as far as the store can tell
    missing: dict[str, str] = {}
    # cloud whose metrics could not be had -> why; the series are of the other clouds alone
    silent: dict[str, str] = {}


class Guardrail(msgspec.Struct, frozen=True, kw_only=True):
    """One guardrail that changed (or confirmed) what the policy wanted, in words."""

    name: str
    before: Action
    after: Action
    reason: str


class Decision(Contract, frozen=True, kw_only=True):
    """The record of one tick: what was seen, wanted, changed and done. Kept for `why did it retrain at 14:03?`."""

    decision_id: str
    service: Name
    slot_s: float
    decided_by: Cloud
    mode: Literal["act", "watch"]
    action: Action
    wanted: Action
    probabilities: tuple[float, ...]
    guardrails: tuple[Guardrail, ...]
    # observation feature -> raw value in its unit; empty when the metrics were missing
    observation: dict[str, float]
    # observation feature -> Shapley value towards the chosen action's probability; empty when not computed
    attributions: dict[str, float]
    policy: str
    policy_sha256: str
    trace_id: TraceId
    reason: str
    job_id: str | None = None
    # what could not be read or done in this slot -> why, in the service's own words
    conditions: dict[str, str] = {}


class TrainingJob(Contract, frozen=True, kw_only=True):
    """The message on the retrain queue. `job_id` comes from service + slot, so a duplicate names the same job."""

    job_id: Name
    service: Name
    slot_s: float
    cloud: Cloud
    trace_id: TraceId
    decision_id: Id
    # version of the serving model the training starts from ("base" = the base model)
    parent_version: Id
    # feedback in [data_start_s, data_end_s) is trained and evaluated on
    data_start_s: float
    data_end_s: float
    hyperparameters: dict[str, str]
    cost_ceiling_usd: NonNegative
    deadline_s: Annotated[float, Meta(gt=0)]


class JobStatus(enum.StrEnum):
    """Where a training job is. Only these; an unknown provider status is an error, never 'finished'."""

    CLAIMED = "claimed"  # the conditional write succeeded; the training service may or may not know the job
    TRAINING = "training"  # the training service accepted it
    SUCCEEDED = "succeeded"  # an artifact and manifest exist; the gate has not spoken
    ACCEPTED = "accepted"  # passed the gate; the endpoints are loading it
    LIVE = "live"  # every endpoint serves it
    REJECTED = "rejected"  # failed the gate; artifact kept
    FAILED = "failed"  # the training service reported a failure
    STOPPED = "stopped"  # stopped by a person or a ceiling


#: a job in one of these blocks another retrain of the same service
IN_FLIGHT: Final = frozenset({JobStatus.CLAIMED, JobStatus.TRAINING, JobStatus.SUCCEEDED, JobStatus.ACCEPTED})


class JobRecord(Contract, frozen=True, kw_only=True):
    """The state of one training job, kept in the table of the cloud that trains it."""

    job: TrainingJob
    status: JobStatus
    updated_s: float
    started_s: float | None = None
    finished_s: float | None = None
    cost_usd: float | None = None
    model_version: str | None = None
    reason: str = ""
    # why it ended where the model is not to blame: the cloud refuses for good, or has no machine now
    cause: Literal["", "refused", "capacity"] = ""
    # what it waits for now, per cloud or thing, in the service's own words
    waits: dict[str, str] = {}
    # clouds whose endpoint will not serve this version -> why; they are not asked again
    refused: dict[str, str] = {}
    # how often each cloud's endpoint was asked to load the version, and when it last was
    asked: dict[str, int] = {}
    asked_s: dict[str, float] = {}
    # when its message was last sent again
    sent_s: float | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Answer quality on one evaluation set, each in [0, 1]."""

    bleu1: Share
    exact_match: Share
    f1: Share
    rouge_l: Share
    examples: Annotated[int, Meta(ge=0)]


class ModelManifest(Contract, frozen=True, kw_only=True):
    """What a trained model is: written by the container beside the artifact, checked before loading."""

    service: Name
    model_version: Name
    parent_version: str
    job_id: str
    trace_id: TraceId
    created_s: float
    base_model: str
    data_start_s: float
    data_end_s: float
    data_sha256: Sha256
    train_examples: int
    eval_sha256: Sha256
    # what may not be both taught and judged by, and how many evaluation questions are taught too (records: allowed)
    held_out: Literal["question", "record"] = "record"
    shared_questions: int = 0
    # the candidate and the serving model on the same fresh evaluation set
    candidate: Metrics
    serving: Metrics | None
    duration_s: float
    # list price of the duration; None when the job was not told a price
    cost_usd: NonNegative | None = None
    # package -> version that trained and exported it
    software: dict[str, str] = {}
    # share of evaluation questions that the 8-bit engine answers exactly as fp32 does; None without such an engine
    int8_agreement: Share | None = None
    # file name (relative, '/' separated) -> sha256 of its content
    files: dict[str, Sha256]


class FeedbackPair(Contract, frozen=True, kw_only=True):
    """A labelled question: what users asked and what the right answers are."""

    question: Annotated[str, Meta(min_length=1, max_length=4096)]
    answers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=32)]
    received_s: float
    prediction: str | None = None
    model_version: str | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One serving endpoint as routers see it."""

    cloud: Cloud
    # http(s)://BASE (/predict and /feedback below it), sagemaker:NAME, or azureml:SCORING_ADDRESS
    url: str
    model_version: str
    weight: NonNegative = 1.0
    healthy: bool = True
    # smoothed measured latency; None before the first measurement
    latency_s: float | None = None


class RouteTable(Contract, frozen=True, kw_only=True):
    """Where requests may go. Published to both clouds; a reader keeps its last one when it cannot read a newer."""

    service: Name
    epoch: Annotated[int, Meta(ge=0)]
    published_s: float
    scheduler: Cloud
    heartbeat_s: float
    endpoints: tuple[Endpoint, ...]
    trace_id: TraceId
    # the last decision that the scheduler of the heartbeat recorded
    decided: str = ""


class ReleasedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a release and what it is for."""

    model_version: Name
    # stable answers every request that names no version; a candidate is loaded beside it; previous is what was stable
    # before, kept loaded where the memory suffices so that a rollback takes seconds
    role: Literal["stable", "candidate", "previous"]
    # of a candidate: the share of requests that it answers too, unseen by the caller
    shadow: Share = 0.0


class Release(Contract, frozen=True, kw_only=True):
    """What a cloud's serving containers serve; an object in that cloud's own store, which they follow."""

    service: Name
    revision: Annotated[int, Meta(ge=1)]
    versions: Annotated[tuple[ReleasedVersion, ...], Meta(min_length=1, max_length=8)]
    changed_s: float
    # who or what changed it, and why
    reason: str = ""

    def of(self, role: str) -> str | None:
        """The version in a role."""
        return next((one.model_version for one in self.versions if one.role == role), None)


class InstanceVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version in one serving instance."""

    model_version: Id
    state: Literal["loading", "ready", "active", "failed"]
    reason: str = ""  # of a failed one: why


class InstanceStatus(Contract, frozen=True, kw_only=True):
    """What one serving instance has loaded, told by itself; counts for INSTANCE_TTL_S (shared.releases)."""

    service: Name
    cloud: Cloud
    instance: Id
    told_s: float
    # the revision of the release document that it follows; 0 while it has read none
    revision: int = 0
    active: str | None = None
    versions: tuple[InstanceVersion, ...] = ()
    # why it cannot follow: the document is unreadable, or too new
    reason: str = ""


T = TypeVar("T", bound=Contract)


def encode(contract: Contract) -> bytes:
    """The contract as canonical JSON bytes."""
    return msgspec.json.encode(contract, order="deterministic")


def decode(kind: type[T], raw: bytes | str) -> T:
    """Parse and validate `raw` as `kind`.

    Raises:
        UnknownVersionError: written by a newer program.
        ContractError: not JSON, or a field is missing or wrong; the message names the field.
    """
    try:
        head: Any = msgspec.json.decode(raw)
    except msgspec.DecodeError as exc:
        raise ContractError(f"{kind.__name__}: not JSON: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ContractError(f"{kind.__name__}: not UTF-8: {exc}") from exc
    except RecursionError as exc:
        raise ContractError(f"{kind.__name__}: nested too deeply") from exc
    except (TypeError, ValueError) as exc:
        raise ContractError(f"{kind.__name__}: not JSON: {exc}") from exc
    version = head.get("version", CONTRACT_VERSION) if isinstance(head, dict) else CONTRACT_VERSION
    if isinstance(version, int) and version > CONTRACT_VERSION:
        raise UnknownVersionError(kind.__name__, version, CONTRACT_VERSION)
    try:
        return msgspec.convert(head, kind)
    except msgspec.ValidationError as exc:
        raise ContractError(f"{kind.__name__}: {exc}") from exc
    except RecursionError as exc:
        raise ContractError(f"{kind.__name__}: nested too deeply") from exc


def slot_of(now_s: float, slot_seconds: float) -> float:
    """The start of the decision slot that contains `now_s`; two schedulers in one slot compute the same."""
    return now_s - now_s % slot_seconds


def job_id_for(service: str, slot_s: float) -> str:
    """The one job name of a service and slot, valid as a SageMaker and an Azure ML job name."""
    return f"{service}-{dt.datetime.fromtimestamp(slot_s, dt.UTC):%Y%m%dt%H%M%S}"


def new_trace_id() -> str:
    """A fresh W3C trace id (32 lower-case hex digits)."""
    return secrets.token_hex(16)
