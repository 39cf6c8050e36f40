"""Guardrails that may overrule a policy: pure checks in a fixed order, each with a reason for the decision record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policy.observation.live import cost_usd, is_in_flight
from shared.contracts import CLOUDS, Action, Cloud, Guardrail, JobRecord, JobStatus
from shared.settings import Settings

DAY_S: Final = 86_400.0
#: how often the cooldown is doubled at most: 64 times the usual one
MOST_DOUBLINGS: Final = 6


@dataclass(frozen=True, slots=True)
class Facts:
    """What the guardrails look at."""

    settings: Settings
    now_s: float
    in_flight: JobRecord | None
    ended_s: float | None  # when the last job ended
    consecutive_failures: int  # jobs in a row, up to the last one, that failed or were rejected
    spent_usd: float  # on jobs started since midnight UTC, estimates included
    unavailable: Mapping[Cloud, str]
    paused: str | None

    @classmethod
    def of(
        cls,
        settings: Settings,
        now_s: float,
        jobs: Sequence[JobRecord],
        unavailable: Mapping[Cloud, str],
        paused: str | None,
    ) -> Facts:
        """Derive them from the job records."""
        midnight_s = now_s - now_s % DAY_S
        running = [record for record in jobs if is_in_flight(record)]
        return cls(
            settings=settings,
            now_s=now_s,
            in_flight=running[0] if running else None,
            ended_s=max((r.updated_s for r in jobs if not is_in_flight(r) and not r.cause), default=None),
            consecutive_failures=consecutive_failures(jobs),
            spent_usd=sum(cost_usd(record, settings) for record in jobs if record.job.slot_s >= midnight_s),
            unavailable=unavailable,
            paused=paused,
        )

    def allowed(self) -> tuple[bool, bool]:
        """Whether AWS, Azure can train now."""
        return "aws" not in self.unavailable, "azure" not in self.unavailable

    def stopped(self) -> str:
        """The operator's pause, in words."""
        return f"retraining is paused: {self.paused}"

    def running(self) -> str:
        """The job in flight, in words."""
        assert self.in_flight is not None
        record = self.in_flight
        return f"job {record.job.job_id} on {record.job.cloud} is {record.status}; one job at a time"


def longest_cooldown_slots(settings: Settings) -> float:
    """The cooldown after so many failures in a row that it grows no further."""
    return settings.cooldown_slots * 2.0**MOST_DOUBLINGS


def consecutive_failures(jobs: Sequence[JobRecord]) -> int:
    """How many jobs in a row, up to the last that ended, failed or were rejected; one a person stopped says nothing."""
    count = 0
    for record in sorted(jobs, key=lambda record: record.updated_s, reverse=True):
        if record.cause:
            continue  # its cloud refused it or had no machine: nothing is wrong with the model
        if record.status in (JobStatus.FAILED, JobStatus.REJECTED):
            count += 1
        elif record.status is JobStatus.LIVE:
            break
    return count


def _paused(action: Action, facts: Facts) -> tuple[Action, str] | None:
    return None if facts.paused is None else (Action.HOLD, facts.stopped())


def _in_flight(action: Action, facts: Facts) -> tuple[Action, str] | None:
    return None if facts.in_flight is None else (Action.HOLD, facts.running())


def _cooldown(action: Action, facts: Facts) -> tuple[Action, str] | None:
    # what keeps failing is tried less and less often: a cause outside the model is not mended by another job
    doubled = min(max(facts.consecutive_failures - 1, 0), MOST_DOUBLINGS)
    wait_s = facts.settings.cooldown_slots * facts.settings.slot_seconds * 2.0**doubled
    if facts.ended_s is None or facts.now_s - facts.ended_s >= wait_s:
        return None
    reason = f"the last job ended {facts.now_s - facts.ended_s:.0f} s ago; the cooldown is {wait_s:.0f} s"
    return (
        Action.HOLD,
        f"{reason}, as the last {facts.consecutive_failures} jobs failed or were rejected" if doubled else reason,
    )


def _unavailable(action: Action, facts: Facts) -> tuple[Action, str] | None:
    cloud = action.cloud
    if cloud is None or cloud not in facts.unavailable:
        return None
    why = f"{cloud} cannot train now ({facts.unavailable[cloud]})"
    for other in CLOUDS:
        if other not in facts.unavailable:
            return Action.for_cloud(other), f"{why}; {other} trains instead"
    return Action.HOLD, f"{why}, nor can the other cloud"


def _budget(action: Action, facts: Facts) -> tuple[Action, str] | None:
    cloud = action.cloud
    if cloud is None:
        return None
    settings = facts.settings
    estimate = settings.list_price_usd_per_hour(cloud) * settings.train_hours(cloud)
    if facts.spent_usd + estimate <= settings.budget_usd_per_day:
        return None
    return Action.HOLD, (
        f"${facts.spent_usd:.2f} spent today and ${estimate:.2f} for this job "
        f"exceed the budget of ${settings.budget_usd_per_day:.2f} a day"
    )


def _watch(action: Action, facts: Facts) -> tuple[Action, str] | None:
    if facts.settings.mode != "watch":
        return None
    return Action.HOLD, "watch mode: decided and recorded, not done"


#: in the order in which they are checked; only a retrain is ever overruled
GUARDRAILS: Final[tuple[tuple[str, Callable[[Action, Facts], tuple[Action, str] | None]], ...]] = (
    ("paused", _paused),
    ("in-flight", _in_flight),
    ("cooldown", _cooldown),
    ("cloud-unavailable", _unavailable),
    ("budget", _budget),
    ("watch", _watch),
)


def apply(action: Action, facts: Facts) -> tuple[Action, list[Guardrail]]:
    """The action that is left, and what each guardrail changed."""
    triggered: list[Guardrail] = []
    for name, guard in GUARDRAILS:
        if action is Action.HOLD:
            break
        verdict = guard(action, facts)
        if verdict is not None:
            triggered.append(Guardrail(name=name, before=action, after=verdict[0], reason=verdict[1]))
            action = verdict[0]
    return action, triggered
