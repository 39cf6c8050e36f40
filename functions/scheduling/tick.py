"""The scheduled tick: read everything, plan without I/O, apply in the order that survives a crash."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Final

from functions.clouds import Deps
from functions.retraining.copying import RESERVE_S
from functions.scheduling.apply import apply
from functions.scheduling.leadership import stands_by
from functions.scheduling.plan import plan_slot
from functions.scheduling.read import read
from shared.contracts import Cloud, Decision, JobRecord
from shared.errors import ContractError, OpportuneError
from shared.records import Held
from shared.state import State
from shared.values import Served

log = logging.getLogger("opportune.functions.tick")

#: looks at the jobs in one run: each may find what the last one set going, up to a model that is live
LOOKS: Final = 4


def tick(deps: Deps, now_s: float) -> Decision | None:
    """One slot of one service; the same slot again repeats nothing.

    None when the other cloud leads, or when no cloud could keep a decision.
    """
    deps = deps.guarded(deps.settings.tick_deadline_seconds)
    if stands_by(deps, now_s):
        log.info("standing by", extra={"action": "tick", "scheduler": deps.settings.scheduler})
        return None
    policy = deps.policy()
    decision: Decision | None = None
    served: Mapping[Cloud, Served] = {}
    for _ in range(LOOKS):
        view = read(deps, now_s, observe=decision is None)
        served = view.served or served  # a later look does not ask the metrics again, and still knows who is silent
        done = apply(deps, plan_slot(dataclasses.replace(view, served=served), policy))
        decision = done.decision or decision
        if not done.moved or deps.deadline.left() < RESERVE_S:
            break
    return decision


def training_finished(deps: Deps, job_id: str, now_s: float) -> JobRecord | None:
    """A completion event names a job of this cloud. Repeated events and unknown jobs change nothing.

    The event only makes things faster: every tick looks at the jobs too, so that a lost one costs a slot, not a job.

    Raises UnavailableError when this cloud's records do not answer, so that the event comes again.
    """
    deps = deps.guarded(deps.settings.tick_deadline_seconds)
    state = deps.state(deps.settings.cloud)
    held = _held(state, job_id)
    if held is None:
        return None
    for _ in range(LOOKS):
        moved = apply(deps, plan_slot(read(deps, now_s, observe=False), None)).moved
        if not moved or deps.deadline.left() < RESERVE_S:
            break
    try:
        held = _held(state, job_id) or held
    except OpportuneError as exc:  # what was done is done
        log.warning("not read again", extra={"action": "finish", "job_id": job_id, "reason": str(exc)})
    return held.record


def _held(state: State, job_id: str) -> Held | None:
    """The job's record; None for somebody else's, or one that a newer program has in its hands."""
    try:
        held = state.job(job_id)
    except ContractError as exc:
        log.error("a job's record cannot be read", extra={"action": "finish", "job_id": job_id, "reason": str(exc)})
        return None
    if held is None:
        log.info("not a job of ours", extra={"action": "finish", "job_id": job_id})
    return held
