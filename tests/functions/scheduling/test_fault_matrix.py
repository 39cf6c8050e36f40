"""Every port call of a tick, a training start and a completion event, broken in nine ways, in each cloud in turn.

A cell is one call of one port in one cloud that fails in one way for a whole run. In every cell the slot has a decision
within its time on the cloud that works, that cloud's heartbeat goes out, nothing is started twice, nothing unjudged
serves, the reason is written down; and once the fault is over, everything ends as if it had never been.

By itself every second cell is tried, the others in the next flow; OPPORTUNE_FAULT_CELLS=all tries each in every flow.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from functions.retraining import copying
from functions.retraining.start import Outcome, start_training
from functions.scheduling.tick import tick, training_finished
from shared.contracts import IN_FLIGHT, Action, JobStatus
from shared.errors import ConflictError, ModelError, NotFoundError, OpportuneError, RefusedError, UnavailableError
from shared.values import Document
from tests.functions.conftest import with_fleets

pytestmark = pytest.mark.slow

JOB = "qa-20270115t080000"
MARK = "planted by the test"
#: a call that hangs may take so long, and so may a run in which one does
CALL_S, RUN_S = 0.05, 2.0
FAULTS = {
    "unavailable": lambda what: UnavailableError(what, MARK),
    "refused for good": lambda what: RefusedError(what, MARK),
    "not found": lambda what: NotFoundError(f"{what}: {MARK}"),
    "conflict": lambda what: ConflictError(f"{what}: {MARK}"),
    "model error": lambda what: ModelError(f"{what}: {MARK}"),
    "answer without a field": lambda what: KeyError(MARK),
    "unreadable document": b"{oops",
    "newer version": b'{"version": 99}',
    "hangs": None,
}


class Call(NamedTuple):
    """A port call: which cloud's, of which port and method; for documents of which kind."""

    cloud: str
    port: str
    method: str
    kind: str

    def __str__(self):
        return f"{self.cloud} {self.port}.{self.method}" + (f"[{self.kind}]" if self.kind else "")


class Broken:
    """A port whose calls are written down, and one of which fails."""

    def __init__(self, cloud, name, port, seen, target=None, fault=""):
        self._cloud, self._name, self._port, self._seen = cloud, name, port, seen
        self._target, self._fault = target, fault

    def __getattr__(self, method):
        real = getattr(self._port, method)

        def call(*args, **kwargs):
            kind = str(args[0]) if self._name == "documents" and method != "get_many" else ""
            this = Call(self._cloud, self._name, method, kind)
            self._seen.add(this)
            if this != self._target:
                return real(*args, **kwargs)
            wanted = FAULTS[self._fault]
            if wanted is None:
                time.sleep(4 * RUN_S)
            if isinstance(wanted, bytes):
                return unreadable(real(*args, **kwargs), wanted)
            raise wanted(f"{self._name}.{method}")

        return call


def unreadable(answer, body):
    """Documents with another content; any other answer is one that its adapter cannot make sense of."""
    if isinstance(answer, Document):
        return Document(body, answer.etag)
    if isinstance(answer, dict):
        return {key: Document(body, document.etag) for key, document in answer.items()}
    if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
        return [(key, body) for key, _ in answer]
    if answer is None or isinstance(answer, list):
        return answer
    raise ValueError(MARK)


def broken(world, seen, target=None, fault=""):
    return world.ported(lambda cloud, name, port: Broken(cloud, name, port, seen, target, fault))


def run_deps(world, cloud, clouds):
    return dataclasses.replace(world.deps(cloud, clouds, cooldown_slots=0.0), call_s=CALL_S, long_call_s=CALL_S)


def good_metrics(world):
    """What the metric store answers in the next slots, too."""
    base = world.deps().metrics().window(0.0, 0.0, 60.0)
    world.metrics = base


# --- what is going on when the fault comes


def idle(world, now, artifact):
    """Nothing in flight; the policy wants a retrain."""


def decided(world, now, artifact):
    """The slot before decided on a retrain, and its message was lost."""
    tick(world.deps(), now - 60)
    world.queue().messages.clear()


def claimed(world, now, artifact):
    """A job was claimed long ago; the training service never heard of it and its message is gone."""
    world.decided(slot_s=now - 600, job_id="qa-20270115t075000", decision_id="decision-qa-20270115t075000")
    start_training(world.deps(), world.message(slot_s=now - 600, job_id="qa-20270115t075000"), now - 600)
    held = world.state().job("qa-20270115t075000")
    world.training()._statuses.clear()
    world.training().started.clear()
    world.state().update(held, dataclasses_replace(held.record, status=JobStatus.CLAIMED))


def dataclasses_replace(record, **changes):
    import msgspec

    return msgspec.structs.replace(record, **changes)


def trained(cloud, quality=0.8):
    """A job of the slot before is through with its training."""

    def prepare(world, now, artifact):
        job_id = "qa-20270115t075900"
        message = world.message(cloud, slot_s=now - 60, job_id=job_id)
        assert start_training(world.deps(cloud), message, now - 50) is Outcome.STARTED
        from tests.functions.conftest import metrics_of

        made = artifact(job_id, candidate=metrics_of(quality))
        world.training(cloud).finish(job_id, artifact=made, started_s=now - 40, finished_s=now - 10)

    prepare.__doc__ = f"A job on {cloud} has just trained a {'better' if quality > 0.5 else 'worse'} model."
    prepare.__name__ = f"trained_{cloud}_{'better' if quality > 0.5 else 'worse'}"
    return prepare


SCENES = [idle, decided, claimed, trained("aws"), trained("azure"), trained("aws", 0.2)]
FLOWS: list[tuple[str, str, Callable[..., Any]]] = [
    *(("tick", "aws", scene) for scene in SCENES),
    ("tick", "azure", trained("azure")),
    ("start", "aws", idle),
    ("start", "azure", idle),
    ("event", "aws", trained("aws")),
    ("event", "azure", trained("azure")),
]


#: what the stores and the hosts take for now
clock = [0.0]


@pytest.fixture
def fresh(world, now, artifact, monkeypatch):
    """A function: scene, scheduler -> a new world in that scene, whose models go in several parts."""
    monkeypatch.setattr(copying, "PART_BYTES", 8)

    def make(scene, scheduler):
        made = with_fleets(world, lambda: clock[0])
        made.settings = dataclasses_replace(world.settings, scheduler=scheduler)
        clock[0] = now
        scene(made, now, artifact)
        return made

    return make


def act(flow, world, cloud, clouds, now):
    deps = run_deps(world, cloud, clouds)
    if flow == "tick":
        return tick(deps, now)
    if flow == "start":
        return start_training(deps, world.message(cloud), now)
    return training_finished(deps, "qa-20270115t075900", now)


def told(world, decision, caplog):
    """Everything that anybody wrote down, as one text."""
    words = [str(decision.conditions) + decision.reason if decision is not None else ""]
    for cloud in world.clouds:
        jobs = world.state(cloud).jobs("qa").records
        words += [f"{record.reason} {record.waits} {record.refused}" for record in jobs]
        words += [reason for _, reason in world.queue(cloud).dead]
    words += [f"{r.message} {getattr(r, 'reason', '')}" for r in caplog.records]
    return "\n".join(words)


def settle(world, now, scheduler):
    """The slots after the fault: ticks, deliveries, trainings that end well."""
    world.policy = load("never")
    for slot in range(1, 5):
        at = clock[0] = now + 60 * slot
        tick(run_deps(world, scheduler, world.clouds), at)
        for cloud in world.clouds:
            messages, world.queue(cloud).messages = world.queue(cloud).messages, []
            for message in messages:
                start_training(run_deps(world, cloud, world.clouds), message, at + 1)


def load(name):
    from policy.decide import load_policy

    return load_policy(name)


def check_ever(world):
    """What holds at any time, whatever is broken."""
    started = [job.job_id for cloud in world.clouds for job, _, _ in world.training(cloud).started]
    assert len(started) == len(set(started)), "a job was started twice"
    judged = {"base"}
    for cloud in world.clouds:
        for record in world.state(cloud).jobs("qa").records:
            if record.status in (JobStatus.ACCEPTED, JobStatus.LIVE):
                judged.add(record.model_version)
    for cloud in world.clouds:
        assert set(world.fleets[cloud].active.values()) <= judged, "a model serves that the gate has not let through"


def check_converged(world, now):
    """Nothing is left over: no job in flight without its training, routes that say what serves."""
    for cloud in world.clouds:
        table = world.state(cloud).routes("qa")
        serving = {endpoint.cloud: endpoint.model_version for endpoint in table.endpoints if endpoint.healthy}
        assert serving == {name: world.serving(name) for name in world.clouds}
        for record in world.state(cloud).jobs("qa").records:
            waits = record.status in IN_FLIGHT and world.training(cloud).status(record.job.job_id) is None
            assert not waits, f"job {record.job.job_id} is {record.status} and nobody trains it"
            assert record.status is not JobStatus.FAILED or record.reason


@pytest.mark.parametrize(("flow", "cloud", "scene"), FLOWS, ids=lambda value: getattr(value, "__name__", value))
def test_whatever_call_fails_in_whatever_way_the_rest_goes_on(fresh, now, caplog, flow, cloud, scene):
    caplog.set_level(logging.WARNING, "opportune")
    began_s, cells, seen = time.monotonic(), 0, set()
    clean = fresh(scene, cloud)
    act(flow, clean, cloud, broken(clean, seen), now)
    assert seen, "the run makes no call"
    every = os.environ.get("OPPORTUNE_FAULT_CELLS") == "all"
    turn = FLOWS.index((flow, cloud, scene))
    for number, target in enumerate(sorted(seen), start=turn):
        for fault in list(FAULTS) if every else list(FAULTS)[number % 2 :: 2]:
            if isinstance(FAULTS[fault], bytes) and target.port != "documents" and target.method != "get_tagged":
                continue  # no document: the same as an answer that its adapter cannot make sense of
            cells += 1
            world = fresh(scene, cloud)
            caplog.clear()
            where = f"{flow} on {cloud}, {scene.__name__}: {target} {fault}"
            started_s, decision, raised = time.monotonic(), None, ""
            try:
                done = act(flow, world, cloud, broken(world, set(), target, fault), now)
            except OpportuneError as exc:  # the platform logs it and delivers again
                assert flow != "tick", f"{where}: the tick raised"
                done, raised = None, str(exc)
            assert time.monotonic() - started_s < RUN_S, f"{where}: too slow"
            check_ever(world)
            works = "azure" if target.cloud == "aws" else "aws"
            if flow == "tick":
                decision = done
                kept = world.state(works).decision(f"decision-{JOB}")
                assert kept is not None, f"{where}: the slot has no decision on the cloud that works"
                assert decision == kept, where
                assert world.state(works).routes("qa").heartbeat_s == now, f"{where}: no heartbeat"
            harmless = FAULTS[fault] if isinstance(FAULTS[fault], bytes) else None
            # a cloud without a release document says the same
            harmless = harmless or (target.method == "get_tagged" and fault == "not found") or None
            # labels that expired after they were listed are counted, and a job has no snapshot before its start
            harmless = harmless or (flow == "start" and target.method == "get" and fault == "not found") or None
            if harmless is None and fault != "conflict":
                words = told(world, decision, caplog) + raised
                assert MARK in words or "no answer within" in words, where
            settle(world, now, cloud)
            check_ever(world)
            check_converged(world, now)
    print(f"{flow} on {cloud}, {scene.__name__}: {cells} cells in {time.monotonic() - began_s:.1f} s")


def test_a_refusal_for_good_ends_the_job_and_the_other_cloud_is_next(fresh, now):
    world = fresh(idle, "aws")
    target = Call("aws", "training", "start", "")
    clouds = broken(world, set(), target, "refused for good")
    assert start_training(run_deps(world, "aws", clouds), world.message(), now) is Outcome.REFUSED
    record = world.state().job(JOB).record
    assert record.status is JobStatus.FAILED and MARK in record.reason
    decision = tick(run_deps(world, "aws", world.clouds), now + 60)
    assert decision.action is Action.RETRAIN_AZURE
    assert MARK in decision.conditions["aws training"]
