"""The pure retrain decision of one slot: metrics -> history -> policy -> guardrails -> the decision record.

    decide(window, context, policy) -> Decision

is pure: everything it needs is handed in, and the same input gives the same decision. `Decision.action` is what is to
be done (hold in watch mode), `Decision.wanted` what the policy wanted before any guardrail triggered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from policy.explain import expected_costs, explained
from policy.guardrails import Facts, apply
from policy.history import History
from policy.observation.live import history_of
from policy.observation.paper import OBSERVATION, observe
from policy.policies import FALLBACK, Evaluation, OutOfDistributionError, Policy, by_rule, live_policy, load_policy
from shared.contracts import Action, Cloud, Decision, Guardrail, JobRecord, MetricWindow, job_id_for
from shared.errors import MetricsError
from shared.settings import Settings

__all__ = ["DecisionContext", "decide", "live_policy", "load_policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionContext:
    """Everything besides the metrics that one decision depends on."""

    settings: Settings
    now_s: float
    slot_s: float
    trace_id: str
    #: the job records of this service on both clouds, of the last 24 hours at least; order does not matter
    jobs: tuple[JobRecord, ...] = ()
    #: clouds whose training service cannot be reached -> why
    unavailable: Mapping[Cloud, str] = field(default_factory=dict)
    #: why an operator paused retraining, or None
    paused: str | None = None


def decide(window: MetricWindow | MetricsError, context: DecisionContext, policy: Policy) -> Decision:
    """The decision of one slot. Missing or stale metrics, or an observation nobody can judge, are a hold."""
    settings = context.settings
    facts = Facts.of(settings, context.now_s, context.jobs, context.unavailable, context.paused)
    guards: list[Guardrail] = []
    history: History | None = None
    evaluation = Evaluation(Action.HOLD, (1.0, 0.0, 0.0))
    shares: dict[str, float] = {}
    try:
        if isinstance(window, MetricsError):
            raise window
        history = history_of(window, context.jobs, settings, context.now_s)
        try:
            evaluation, shares = explained(policy, history, facts.allowed())
        except OutOfDistributionError as exc:
            evaluation = by_rule(history, facts.allowed())
            reason = f"out of distribution: {exc}; rule {FALLBACK!r} decides"
            guards.append(_guard("out-of-distribution", evaluation.action, reason))
    except MetricsError as exc:
        guards.append(_guard("metrics", Action.HOLD, f"hold: {exc}"))
    action, triggered = apply(evaluation.action, facts)
    guards += triggered
    if facts.paused is not None and all(guard.name != "paused" for guard in guards):
        guards.append(_guard("paused", Action.HOLD, facts.stopped()))  # what an operator asked for is said in any case
    job_id = job_id_for(settings.service, context.slot_s)
    return Decision(
        decision_id=f"decision-{job_id}",
        service=settings.service,
        slot_s=context.slot_s,
        decided_by=settings.cloud,
        mode=settings.mode,
        action=action,
        wanted=evaluation.action,
        probabilities=evaluation.probabilities,
        guardrails=tuple(guards),
        observation={} if history is None else _named(history),
        attributions=shares,
        policy=policy.name,
        policy_sha256=policy.sha256,
        trace_id=context.trace_id,
        reason=guards[-1].reason if guards or history is None else _reason(policy, evaluation, history, facts),
        job_id=None if action is Action.HOLD else job_id,
    )


def _guard(name: str, after: Action, reason: str) -> Guardrail:
    """A guardrail that triggered because the policy could not decide."""
    return Guardrail(name=name, before=Action.HOLD, after=after, reason=reason)


def _named(history: History) -> dict[str, float]:
    """The six numbers by name; a missing one is left out, never zero."""
    values = observe(history)
    return {f.name: float(v) for f, v in zip(OBSERVATION, values, strict=True) if np.isfinite(v)}


def _reason(policy: Policy, evaluation: Evaluation, history: History, facts: Facts) -> str:
    """Why, in one sentence with the numbers that matter."""
    if facts.in_flight is not None:
        return f"hold: {facts.running()}"
    chosen, probability = evaluation.action, evaluation.probabilities[evaluation.action]
    seen = _named(history)
    costs = expected_costs(history)
    described = f"quality {seen['accuracy']:.2f}" if "accuracy" in seen else "quality unknown"
    if costs is not None:
        described += f" (was {costs.fresh_quality:.2f} when new); a retrain costs ${costs.retrain_usd:.2f}"
        described += f", quality lost since then ${costs.lost_usd:.2f}"
    word = "hold" if chosen is Action.HOLD else f"retrain on {chosen.cloud}"
    return f"{policy.name}: {word} ({probability:.0%} sure); {described}"
