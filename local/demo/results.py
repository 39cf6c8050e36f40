"""What one arm of a demo run did, and the numbers drawn from it.

Real time is POSIX seconds or seconds since the start; simulated time is real time since the start times `speed`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from local.demo.load_generator import Outcome, by_slot
from shared.contracts import CLOUDS, Cloud, Decision, JobRecord, JobStatus
from shared.quality import quality as quality_of

#: live quality before and after a retrain is measured over this many slots
BEFORE_AFTER_SLOTS: Final = 5

#: how the metrics of the serving containers got to where decisions are made
METRICS_PATH: Final = "remote-write"

#: a job in one of these never ran in a training service
NEVER_RAN: Final = frozenset({JobStatus.CLAIMED})


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One log line that carries a trace id: POSIX seconds, the process that wrote it, what it says it does."""

    at_s: float
    source: str
    action: str
    message: str


@dataclass(frozen=True, slots=True)
class Swap:
    """From `at_s` (simulated seconds) on, `cloud` is the nearer one."""

    at_s: float
    cloud: Cloud


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per simulated hour."""

    training_usd_per_hour: dict[Cloud, float]
    quality_usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Arm:
    """Everything one arm did. `started_s` is POSIX seconds, `slot_s` real seconds."""

    name: str
    policy: str
    started_s: float
    wall_s: float
    speed: float
    slot_s: float
    minutes: float
    outcomes: tuple[Outcome, ...]
    decisions: tuple[Decision, ...]
    jobs: tuple[JobRecord, ...]
    swaps: tuple[Swap, ...]
    drifts_s: tuple[tuple[float, str], ...]  # (simulated seconds, group)
    prices: Prices
    traces: dict[str, tuple[TraceEvent, ...]]  # trace id -> its log lines, oldest first
    feedback_failed: int = 0
    #: question -> (BLEU-1, exact match) of the model that the run began with; empty when it was not asked
    first_model: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def minute(self, at_s: float) -> float:
        """Simulated minutes since the start of a POSIX time."""
        return (at_s - self.started_s) * self.speed / 60

    @property
    def slot_minutes(self) -> float:
        """Simulated minutes of one decision slot."""
        return self.slot_s * self.speed / 60

    @property
    def ran(self) -> tuple[JobRecord, ...]:
        """The jobs that a training service accepted, oldest first."""
        return tuple(sorted((j for j in self.jobs if j.status not in NEVER_RAN), key=lambda j: j.job.slot_s))

    def cost_usd(self, job: JobRecord) -> float:
        """Training time on the simulated clock at list price; a failed job costs as well. 0 before it started."""
        if job.started_s is None:
            return 0.0
        end_s = job.finished_s if job.finished_s is not None else self.started_s + self.wall_s
        hours = max(0.0, end_s - job.started_s) * self.speed / 3600
        return hours * self.prices.training_usd_per_hour[job.job.cloud]


@dataclass(frozen=True, slots=True)
class Retrain:
    """One retrain as users felt it. Minutes are simulated; live quality is None when nothing was asked then."""

    job: JobRecord
    decided_min: float
    live_min: float | None  # when the first answer of the new model arrived
    cost_usd: float
    bleu1: tuple[float | None, float | None]  # (before the decision, after going live)
    exact_match: tuple[float | None, float | None]
    #: BLEU-1 of the first model on the questions asked after going live; None when it was not asked
    bleu1_first_model: float | None


def retrains(arm: Arm) -> list[Retrain]:
    """Every job that ran, with the live quality before its decision and after its model answered first."""
    found = []
    window_s = BEFORE_AFTER_SLOTS * arm.slot_s
    for job in arm.ran:
        decided_s = job.job.slot_s - arm.started_s
        live_s = min(
            (o.due_s + o.latency_s for o in arm.outcomes if o.ok and o.model_version == job.model_version),
            default=None,
        )
        before = [o for o in arm.outcomes if decided_s - window_s <= o.due_s < decided_s]
        after = [] if live_s is None else [o for o in arm.outcomes if live_s <= o.due_s < live_s + window_s]
        found.append(
            Retrain(
                job=job,
                decided_min=decided_s * arm.speed / 60,
                live_min=None if live_s is None else live_s * arm.speed / 60,
                cost_usd=arm.cost_usd(job),
                bleu1=(_mean([o.bleu1 for o in before]), _mean([o.bleu1 for o in after])),
                exact_match=(_mean([o.exact_match for o in before]), _mean([o.exact_match for o in after])),
                bleu1_first_model=_mean(
                    [arm.first_model[o.question][0] for o in after if o.question in arm.first_model]
                ),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Slots:
    """Per slot, shape (slots,): NaN where nothing was answered."""

    minutes: NDArray[np.float64]  # the slot's start on the simulated clock
    bleu1: NDArray[np.float64]
    exact_match: NDArray[np.float64]
    requests: NDArray[np.float64]
    failed: NDArray[np.float64]
    answered_by: dict[Cloud, NDArray[np.float64]]
    p50_s: dict[Cloud, NDArray[np.float64]]
    p95_s: dict[Cloud, NDArray[np.float64]]
    groups: dict[str, NDArray[np.float64]]  # requests per group


def slots(arm: Arm) -> Slots:
    """The run in slots of one decision each."""
    count = math.ceil(arm.minutes / arm.slot_minutes)
    names = sorted({o.group for o in arm.outcomes})

    def blank(value: float) -> NDArray[np.float64]:
        return np.full(count, value)

    made = Slots(
        minutes=np.arange(count, dtype=np.float64) * arm.slot_minutes,
        bleu1=blank(np.nan),
        exact_match=blank(np.nan),
        requests=blank(0),
        failed=blank(0),
        answered_by={cloud: blank(0) for cloud in CLOUDS},
        p50_s={cloud: blank(np.nan) for cloud in CLOUDS},
        p95_s={cloud: blank(np.nan) for cloud in CLOUDS},
        groups={name: blank(0) for name in names},
    )
    for slot, found in by_slot(list(arm.outcomes), arm.slot_s):
        if slot >= count:
            continue
        made.requests[slot] = len(found)
        made.failed[slot] = sum(not o.ok for o in found)
        made.bleu1[slot] = _or_nan(_mean([o.bleu1 for o in found]))
        made.exact_match[slot] = _or_nan(_mean([o.exact_match for o in found]))
        for name, n in Counter(o.group for o in found).items():
            made.groups[name][slot] = n
        for cloud in CLOUDS:
            latencies = [o.latency_s for o in found if o.ok and o.cloud == cloud]
            made.answered_by[cloud][slot] = len(latencies)
            if latencies:
                made.p50_s[cloud][slot], made.p95_s[cloud][slot] = np.quantile(latencies, [0.5, 0.95])
    return made


def costs_usd(arm: Arm, per_slot: Slots) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(training, lost quality value), cumulative at the end of each slot, shape (slots,), in simulated dollars.

    Training counts when it ends. Lost value is the value of one unit of quality times what the quality lacks to 1,
    with quality 0.5 BLEU-1 + 0.5 exact match; a slot without an answer keeps the last one's, a slot before the first
    answer costs nothing.
    """
    training = np.zeros(len(per_slot.minutes))
    for job in arm.ran:
        end_s = job.finished_s if job.finished_s is not None else arm.started_s + arm.wall_s
        slot = int(np.clip(arm.minute(end_s) // arm.slot_minutes, 0, len(training) - 1))
        training[slot] += arm.cost_usd(job)
    quality = quality_of(per_slot.bleu1, per_slot.exact_match)
    known = np.maximum.accumulate(np.where(np.isnan(quality), -1, np.arange(len(quality))))
    missing = np.where(known < 0, 0.0, 1 - np.nan_to_num(quality[np.maximum(known, 0)]))
    lost = missing * arm.prices.quality_usd_per_hour * arm.slot_minutes / 60
    return np.cumsum(training), np.cumsum(lost)


def cost_usd(arm: Arm) -> float:
    """Training and lost quality of the whole run, in simulated dollars."""
    training, lost = costs_usd(arm, slots(arm))
    return float(training[-1] + lost[-1])


def never(arm: Arm) -> Arm | None:
    """The same requests answered by the model that the run began with; None when it was not asked all of them."""
    if not arm.outcomes or any(o.ok and o.question not in arm.first_model for o in arm.outcomes):
        return None
    outcomes = []
    for o in arm.outcomes:
        bleu1, exact_match = arm.first_model[o.question] if o.ok else (None, None)
        outcomes.append(replace(o, bleu1=bleu1, exact_match=exact_match, model_version=None))
    return replace(
        arm, name="never", policy="the first model throughout", outcomes=tuple(outcomes), decisions=(), jobs=()
    )


@dataclass(frozen=True, slots=True)
class Against:
    """What the subject of a run came to beside another policy on the same questions. Dollars are simulated."""

    arm: Arm  # the other policy
    cost_usd: float
    saved_usd: float  # negative when the subject cost more
    saved_share: float | None  # of what the other one cost; None when that is nothing


def comparisons(arms: Sequence[Arm]) -> list[Against]:
    """The first arm against never, where that was measured, and against every other arm that ran."""
    subject, *others = arms
    mine = cost_usd(subject)
    found = []
    for other in [*([unchanged] if (unchanged := never(subject)) else []), *others]:
        theirs = cost_usd(other)
        saved = theirs - mine
        found.append(Against(other, theirs, saved, saved / theirs if theirs > 0 else None))
    return found


def against(arms: Sequence[Arm]) -> dict[str, dict[str, float | None]]:
    """The comparisons as the JSON of `opportune demo --json`: name of the other policy -> its numbers."""
    return {
        other.arm.name: {
            "bleu1_mean": _rounded(_mean([o.bleu1 for o in other.arm.outcomes if o.ok])),
            "exact_match_mean": _rounded(_mean([o.exact_match for o in other.arm.outcomes if o.ok])),
            "cost_usd": _rounded(other.cost_usd),
            "saved_usd": _rounded(other.saved_usd),
            "saved_share": _rounded(other.saved_share),
        }
        for other in comparisons(arms)
    }


def summary(arm: Arm) -> dict[str, Any]:
    """The arm as the JSON object of `opportune demo --json`; a number that nothing supports is null."""
    answered = [o for o in arm.outcomes if o.ok]
    latencies = [o.latency_s for o in answered]
    p50, p95 = np.quantile(latencies, [0.5, 0.95]) if latencies else (None, None)
    training, lost = costs_usd(arm, slots(arm))
    per_cloud = Counter(job.job.cloud for job in arm.ran)
    return {
        "retrains": {cloud: per_cloud[cloud] for cloud in CLOUDS},
        "bleu1_mean": _rounded(_mean([o.bleu1 for o in answered])),
        "bleu1_before_after": [
            [_rounded(r.bleu1[0]), _rounded(r.bleu1[1])]
            for r in retrains(arm)
            if r.bleu1[0] is not None and r.bleu1[1] is not None
        ],
        "exact_match_mean": _rounded(_mean([o.exact_match for o in answered])),
        "requests": len(arm.outcomes),
        "failed_requests": len(arm.outcomes) - len(answered),
        "latency_p50_s": _rounded(p50),
        "latency_p95_s": _rounded(p95),
        "cost_usd": _rounded(float(training[-1] + lost[-1])),
        "decisions": len(arm.decisions),
        "wall_s": round(arm.wall_s, 1),
        "metrics_path": METRICS_PATH,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
