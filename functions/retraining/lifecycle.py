"""A training job's way from claimed to live: what comes next, from what was read. Pure; asks nobody anything.

    CLAIMED -> TRAINING -> SUCCEEDED -> ACCEPTED -> LIVE
       |          |            |           `-> FAILED | STOPPED   no endpoint could load it; a person took it back
       |          |            `-> REJECTED               the gate refused it
       |          `-> FAILED | STOPPED                    the training service said so, or a person
       `-> FAILED                                         never reached the training service

What is overdue comes before anything that may fail: a job whose cloud answers nothing but errors ends all the same,
with the last error as its reason. While a person holds releases (`held`), a finished job waits and nothing is overdue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from functions.retraining.gate import judge
from functions.scheduling.view import JobView, Unusable
from shared.contracts import IN_FLIGHT, Cloud, JobRecord, JobStatus
from shared.records import Unread
from shared.settings import Settings
from shared.values import HostState, TrainingStatus

#: a job that runs for so many times its deadline is stopped: for a training service that does not enforce it
PATIENCE: Final = 2.0
#: what a record says of the artifact, the gate and the training service
ARTIFACT, GATE, SERVICE = "artifact", "gate", "training service"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a job's next step depends on beside itself."""

    settings: Settings
    now_s: float
    #: each cloud's endpoint
    hosts: Mapping[Cloud, HostState | Unread]
    #: clouds whose endpoint has served some version before
    served_before: frozenset[Cloud]
    #: why nothing may be released now (paused, watch mode), or None
    held: str | None = None
    #: when the operator switch was last changed
    switched_s: float = 0.0
    #: jobs that a person ended
    stopped: frozenset[str] = frozenset()


class Step(NamedTuple):
    """What becomes of a job now: each record on its way, the last of which is written."""

    path: tuple[JobRecord, ...]
    stop: bool = False  # the training service is asked to end it before that

    @property
    def record(self) -> JobRecord:
        """The record to write."""
        return self.path[-1]


def next_step(job: JobView, around: Surroundings) -> Step | None:
    """As many steps as can be taken on what was read; None when there is nothing to change."""
    record = job.held.record
    path: list[JobRecord] = []
    stop = False
    while record.status in IN_FLIGHT:
        if record.job.job_id in around.stopped:
            following = _ended(record, JobStatus.STOPPED, "stopped by a person", around.now_s)
            stop = job.held.record.status in (JobStatus.CLAIMED, JobStatus.TRAINING)
        else:
            following = _STEPS[record.status](job, record, around)
        if following is record:
            break
        if following.status is record.status:  # only what it waits for has changed
            path.append(following)
            break
        if record.status is JobStatus.TRAINING and following.status in (JobStatus.STOPPED, JobStatus.FAILED):
            stop = stop or not isinstance(job.status, TrainingStatus) or job.status.state == "running"
        path.append(following)
        record = following
    if not path:
        return None
    written = msgspec.structs.replace(path[-1], updated_s=around.now_s)
    if path[-1].status is job.held.record.status:
        written = msgspec.structs.replace(path[-1], updated_s=job.held.record.updated_s)
    return Step((*path[:-1], written), stop)


def releases(record: JobRecord, around: Surroundings) -> list[Cloud]:
    """The clouds whose endpoint is to be asked to serve an accepted job's version now.

    One that was asked is asked again once it has stopped loading without serving it: then it says why.
    """
    if record.status is not JobStatus.ACCEPTED or around.held is not None:
        return []
    return [
        cloud
        for cloud, host in around.hosts.items()
        if isinstance(host, HostState)
        and host.version != record.model_version
        and not (host.updating and _stable(host) == record.model_version)
        and cloud not in record.refused
        and record.asked_s.get(cloud) != around.now_s  # once a run: what was asked for just now takes its time
    ]


def _stable(host: HostState) -> str | None:
    """What the endpoint's instances are to serve; None where nothing was released."""
    return host.release.of("stable") if host.release else None


def _overdue(record: JobRecord, since_s: float | None, around: Surroundings, patience: float) -> bool:
    began_s = record.job.slot_s if since_s is None else since_s
    return around.now_s - began_s > patience * record.job.deadline_s


def _claimed(job: JobView, record: JobRecord, around: Surroundings) -> JobRecord:
    """The starter may have crashed on either side of the start; its redelivered message repairs the other case."""
    deadline_s = record.job.deadline_s
    unknown = job.status.reason if isinstance(job.status, Unread) else ""
    if isinstance(job.status, TrainingStatus):
        return msgspec.structs.replace(record, status=JobStatus.TRAINING, started_s=around.now_s, waits={})
    if around.held is not None and not unknown:
        return _ended(record, JobStatus.STOPPED, around.held, around.now_s)
    # one that the service does not know never began; of one it says nothing about, nobody knows
    if _overdue(record, None, around, PATIENCE if unknown else 1.0):
        last = f"; the last answer: {unknown}" if unknown else ""
        words = f"never reached the training service within {deadline_s:g} s{last}"
        words += "".join(f"; {what}: {why}" for what, why in record.waits.items() if why != unknown)
        return _ended(record, JobStatus.FAILED, words, around.now_s)
    return _waiting(record, SERVICE, unknown)


def _training(job: JobView, record: JobRecord, around: Surroundings) -> JobRecord:
    told = job.status
    if told is None:
        return _ended(record, JobStatus.FAILED, "the training service does not know the job any more", around.now_s)
    late = _overdue(record, record.started_s, around, PATIENCE)
    if isinstance(told, Unread):
        if late:
            return _ended(record, JobStatus.FAILED, f"nothing is known of it: {told.reason}", around.now_s)
        return _waiting(record, SERVICE, told.reason)
    if told.state == "running":
        if late:
            return _timed(record, told, around, JobStatus.STOPPED, f"ran {PATIENCE:g} times as long as its deadline")
        return _waiting(record, SERVICE, "" if told.started_s is not None else told.reason)
    status = {"succeeded": JobStatus.SUCCEEDED, "failed": JobStatus.FAILED, "stopped": JobStatus.STOPPED}[told.state]
    return _timed(record, told, around, status, "" if status is JobStatus.SUCCEEDED else told.reason)


def _timed(record: JobRecord, told: TrainingStatus, around: Surroundings, status: JobStatus, reason: str) -> JobRecord:
    """The record with times and cost: what the service bills, else its own times; what never started costs nothing."""
    finished_s = told.finished_s if told.finished_s is not None else around.now_s
    # one that succeeded has run, whether or not the service says since when
    ran_since_s = record.started_s if told.started_s is None and told.state == "succeeded" else told.started_s
    seconds = told.billed_s
    if seconds is None:
        seconds = 0.0 if ran_since_s is None else max(0.0, finished_s - ran_since_s)
    began_s = told.started_s if told.started_s is not None or told.capacity else record.started_s
    cost_usd = seconds / 3600.0 * around.settings.time_scale
    if told.capacity:
        status, reason = JobStatus.FAILED, f"waited for capacity: {reason}"
    return msgspec.structs.replace(
        record,
        status=status,
        started_s=began_s,
        finished_s=finished_s,
        cost_usd=cost_usd * around.settings.list_price_usd_per_hour(record.job.cloud),
        reason=reason,
        cause="capacity" if told.capacity else "",
        waits={},
    )


def _succeeded(job: JobView, record: JobRecord, around: Surroundings) -> JobRecord:
    """Let the gate speak of the model, once it is known and usable."""
    late = _overdue(record, max(record.finished_s or 0.0, around.switched_s), around, 1.0) and around.held is None
    manifest = job.model
    if manifest is None or isinstance(manifest, Unread):
        why = "" if manifest is None else manifest.reason
        if late:
            return _ended(record, JobStatus.FAILED, f"the model artifact cannot be read: {why}", around.now_s)
        return _waiting(record, ARTIFACT, why)
    if isinstance(manifest, Unusable):
        return _ended(record, JobStatus.FAILED, f"the model artifact is unusable: {manifest.reason}", around.now_s)
    serving = serving_version(record.job.cloud, around)
    if isinstance(serving, Unread):
        if late:
            words = f"not judged, as it is not known what serves: {serving.reason}"
            return _ended(record, JobStatus.FAILED, words, around.now_s)
        return _waiting(record, GATE, f"it is not known what serves: {serving.reason}")
    verdict = judge(
        manifest, serving, margin=around.settings.gate_margin, min_examples=around.settings.gate_min_examples
    )
    return msgspec.structs.replace(
        record,
        status=JobStatus.ACCEPTED if verdict.accepted else JobStatus.REJECTED,
        model_version=manifest.model_version,
        reason=verdict.reason,
        waits={},
    )


def serving_version(cloud: Cloud, around: Surroundings) -> str | Unread | None:
    """The version that serves on a cloud; None only where none ever did."""
    host = around.hosts.get(cloud, Unread("no such cloud"))
    if isinstance(host, Unread):
        return host
    stable = _stable(host)
    if host.version is None and (cloud in around.served_before or stable):
        return Unread(host.reason or "the endpoint served before and now names no version; is it being made again?")
    if host.updating and stable not in (None, host.version):
        return Unread(f"the release of {stable} is still being loaded")
    return host.version


def _accepted(job: JobView, record: JobRecord, around: Surroundings) -> JobRecord:
    """Live once every endpoint serves it, or those that can when the time is over."""
    version = record.model_version
    assert version is not None, "an accepted job has a model version"
    if around.held is not None:
        return _waiting(record, "release", around.held)
    hosts = {cloud: host for cloud, host in around.hosts.items() if isinstance(host, HostState)}
    for cloud, host in hosts.items():
        if why := _taken_back(record, cloud, host):
            return _ended(record, JobStatus.STOPPED, f"taken back on {cloud}: {why}", around.now_s)
    record = _asked_in_vain(_waiting(record, "release", ""), hosts)
    serving = [cloud for cloud, host in hosts.items() if host.version == version]
    open_ = [cloud for cloud in around.hosts if cloud not in serving and cloud not in record.refused]
    if not open_ and not record.refused:
        return msgspec.structs.replace(record, status=JobStatus.LIVE, waits={})
    since_s = max(record.finished_s or record.job.slot_s, around.switched_s)
    if open_ and not _overdue(record, since_s, around, 1.0):
        return record
    whys = [f"{cloud} refused it: {why}" for cloud, why in record.refused.items()]
    if open_:
        late = f"{' and '.join(open_)} did not serve {version} within {record.job.deadline_s:g} s"
        whys += [late, *(f"{what}: {why}" for what, why in record.waits.items())]
        whys += [f"{cloud}: {hosts[cloud].reason}" for cloud in open_ if cloud in hosts and hosts[cloud].reason]
    if not serving:
        return _ended(record, JobStatus.FAILED, "; ".join(whys), around.now_s)
    return _ended(record, JobStatus.LIVE, "; ".join([record.reason, *whys]), around.now_s)


def _taken_back(record: JobRecord, cloud: Cloud, host: HostState) -> str:
    """What a person released instead, or "": a person's release is not undone by a job that was accepted before it.

    A rollback names the job's version as the previous one; where that was not asked for yet, any later change counts.
    """
    release, stable = host.release, _stable(host)
    if release is None or stable == record.model_version:
        return ""
    later = cloud not in record.asked and release.changed_s > record.updated_s
    if later or release.of("previous") == record.model_version:
        return f"{stable} was released instead ({release.reason or 'no reason given'})"
    return ""


def _asked_in_vain(record: JobRecord, hosts: Mapping[Cloud, HostState]) -> JobRecord:
    """The record with the endpoints that will not serve it: broken ones, and those whose release went back."""
    refused = dict(record.refused)
    for cloud, host in hosts.items():
        if host.version == record.model_version:
            continue
        if not host.healthy and not host.updating:
            refused.setdefault(cloud, host.reason or "the endpoint does not answer")
        elif host.release is not None and cloud in record.asked and _stable(host) != record.model_version:
            refused.setdefault(cloud, f"{_stable(host)} was released instead ({host.release.reason})")
    return record if refused == record.refused else msgspec.structs.replace(record, refused=refused)


def _waiting(record: JobRecord, what: str, why: str) -> JobRecord:
    """The record with what it waits for; the very same one when that is known."""
    if record.waits.get(what, "") == why:
        return record
    waits = {name: words for name, words in record.waits.items() if name != what} | ({what: why} if why else {})
    return msgspec.structs.replace(record, waits=waits)


def _ended(record: JobRecord, status: JobStatus, reason: str, now_s: float) -> JobRecord:
    return msgspec.structs.replace(
        record,
        status=status,
        reason=reason,
        finished_s=record.finished_s if record.finished_s is not None else now_s,
        # what never trained cost nothing; what trained and ended in silence counts as expected
        cost_usd=0.0 if record.cost_usd is None and record.started_s is None else record.cost_usd,
        waits={},
    )


_STEPS: Final[dict[JobStatus, Callable[[JobView, JobRecord, Surroundings], JobRecord]]] = {
    JobStatus.CLAIMED: _claimed,
    JobStatus.TRAINING: _training,
    JobStatus.SUCCEEDED: _succeeded,
    JobStatus.ACCEPTED: _accepted,
}
