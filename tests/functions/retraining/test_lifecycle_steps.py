"""One job, one look at it: to the second when it is late, to the cent what it cost, and in words why it waits."""

import dataclasses
from typing import Any

import msgspec
import pytest

from functions.retraining.lifecycle import Surroundings, next_step, releases, serving_version
from functions.scheduling.view import JobView, Unusable
from shared.contracts import JobRecord, JobStatus, Release, ReleasedVersion
from shared.records import Held, Unread
from shared.settings import Settings
from shared.values import HostState, TrainingStatus

BASE, NEW = "base", "m1"
HOSTS = {"aws": HostState(BASE, "http://aws"), "azure": HostState(BASE, "http://azure")}
RUNNING = TrainingStatus("running", "", 10.0, None)


def around(now_s: float, **changes: Any) -> Surroundings:
    plain: dict[str, Any] = {"settings": Settings(), "hosts": HOSTS, "served_before": frozenset()}
    return Surroundings(now_s=now_s, **plain | changes)


@pytest.fixture
def seen(a_job):
    """A function: a job's state, what its training service and its model say -> the look at it.

    It was decided at 1000 and has 100 s.
    """

    def make(status, told=None, artifact=None, **changes):
        plain = {"job": a_job(slot_s=1000.0, deadline_s=100.0), "status": status, "updated_s": 1000.0}
        return JobView(Held(JobRecord(**plain | changes), "1"), told, artifact)

    return make


@pytest.fixture
def claimed(seen):
    return lambda told=None, **changes: seen(JobStatus.CLAIMED, told, **changes)


@pytest.fixture
def training(seen):
    """A job that began to train at 1010."""
    return lambda told=RUNNING, **changes: seen(JobStatus.TRAINING, told, **{"started_s": 1010.0} | changes)


@pytest.fixture
def succeeded(seen):
    """A job that finished at 1050."""
    return lambda artifact=None, **changes: seen(
        JobStatus.SUCCEEDED, None, artifact, **{"started_s": 1010.0, "finished_s": 1050.0} | changes
    )


@pytest.fixture
def accepted(seen):
    """A job that finished at 1050 and whose model the endpoints are to load."""
    plain = {"started_s": 1010.0, "finished_s": 1050.0, "model_version": NEW, "reason": "better"}
    return lambda **changes: seen(JobStatus.ACCEPTED, **plain | changes)


@pytest.fixture
def model(a_manifest, metrics_with):
    """A function: its quality -> a model trained from the base, which scores 0.5."""

    def make(quality=0.8, **changes):
        plain = {"candidate": metrics_with(quality), "serving": metrics_with(0.5)}
        return a_manifest(**plain | changes)

    return make


# --- claimed


def test_a_claimed_job_has_until_its_deadline_to_reach_the_training_service(claimed):
    assert next_step(claimed(), around(1100.0)) is None
    step = next_step(claimed(), around(1100.1))
    assert (step.record.status, step.stop, step.record.updated_s) == (JobStatus.FAILED, False, 1100.1)
    assert step.record.reason == "never reached the training service within 100 s"


def test_of_a_silent_training_service_nobody_knows_for_twice_as_long(claimed):
    silent, waits = Unread("503 Slow Down"), {"training service": "503 Slow Down", "lock": "contended"}
    assert next_step(claimed(silent, waits=waits), around(1200.0)) is None
    step = next_step(claimed(silent, waits=waits), around(1200.1))
    assert step.record.status is JobStatus.FAILED
    assert step.record.reason.endswith("within 100 s; the last answer: 503 Slow Down; lock: contended")


def test_what_a_job_waits_for_is_written_once_and_is_no_progress(claimed):
    silent = Unread("503 Slow Down")
    step = next_step(claimed(silent, waits={"lock": "contended"}), around(1050.0))
    assert step.record.waits == {"lock": "contended", "training service": "503 Slow Down"}
    assert step.record.updated_s == 1000.0, "since when it is claimed stays"
    assert next_step(JobView(Held(step.record, "2"), silent), around(1060.0)) is None, "nothing new to write"
    back = next_step(JobView(Held(step.record, "2"), None), around(1060.0))
    assert back.record.waits == {"lock": "contended"}, "it answers again"


def test_a_pause_ends_what_was_not_begun_unless_nobody_knows(claimed):
    step = next_step(claimed(), around(1010.0, held="retraining is paused: freeze"))
    assert (step.record.status, step.record.reason) == (JobStatus.STOPPED, "retraining is paused: freeze")
    assert step.record.finished_s == 1010.0
    waiting = next_step(claimed(Unread("503")), around(1010.0, held="retraining is paused: freeze"))
    assert waiting.record.status is JobStatus.CLAIMED
    assert next_step(claimed(), around(1010.0)) is None, "without a pause it waits for its start"


def test_a_job_that_runs_without_a_note_of_its_start_is_training(claimed):
    step = next_step(claimed(RUNNING, waits={"lock": "contended"}), around(1010.0))
    assert (step.record.status, step.record.started_s, step.record.waits) == (JobStatus.TRAINING, 1010.0, {})
    assert not step.stop


# --- training


def test_a_job_that_runs_for_twice_its_deadline_is_stopped(training):
    assert next_step(training(), around(1210.0)) is None
    step = next_step(training(), around(1210.1))
    assert (step.record.status, step.stop) == (JobStatus.STOPPED, True)
    assert step.record.reason == "ran 2 times as long as its deadline"


def test_a_silent_training_service_is_waited_for_just_as_long(training):
    step = next_step(training(Unread("503")), around(1210.0))
    assert (step.record.status, step.record.waits) == (JobStatus.TRAINING, {"training service": "503"})
    step = next_step(training(Unread("503")), around(1210.1))
    assert (step.record.status, step.record.reason) == (JobStatus.FAILED, "nothing is known of it: 503")
    assert step.stop, "it may still run, and cost"


def test_a_job_that_waits_for_a_machine_says_so_until_it_has_one(training):
    queued = TrainingStatus("running", "Pending: no ml.g4dn.xlarge", None, None)
    step = next_step(training(queued), around(1020.0))
    assert step.record.waits == {"training service": "Pending: no ml.g4dn.xlarge"}
    later = next_step(JobView(Held(step.record, "2"), RUNNING), around(1030.0))
    assert later.record.waits == {}


def test_a_job_that_ended_by_itself_is_not_stopped_again(training):
    step = next_step(training(TrainingStatus("failed", "CUDA out of memory", 1010.0, 1020.0)), around(1030.0))
    assert (step.record.status, step.record.reason, step.stop) == (JobStatus.FAILED, "CUDA out of memory", False)
    forgotten = next_step(training(None), around(1030.0))
    assert (forgotten.record.status, forgotten.stop) == (JobStatus.FAILED, True), "forgotten may still be running"


@pytest.mark.parametrize(
    ("told", "hours"),
    [
        (TrainingStatus("succeeded", "", 1000.0, 4600.0), 1.0),
        (TrainingStatus("succeeded", "", 1000.0, 4600.0, billed_s=1800.0), 0.5),
        (TrainingStatus("succeeded", "", 1400.0, None), 1.0),
        (TrainingStatus("failed", "no such image", None, 4600.0), 0.0),
        (TrainingStatus("failed", "its clock is behind", 4600.0, 4599.5), 0.0),
    ],
)
def test_a_job_costs_what_is_billed_else_its_time_at_list_price(training, told, hours):
    """Seen at 5000 s; half an hour of the service's time is an hour of simulated time."""
    settings = Settings(price_usd_per_hour_aws=3.0, time_scale=2.0)
    record = next_step(training(told, started_s=1010.0), around(5000.0, settings=settings)).record
    assert record.cost_usd == pytest.approx(hours * 2.0 * 3.0, abs=1e-12)
    assert record.finished_s == (told.finished_s if told.finished_s is not None else 5000.0)
    assert record.started_s == (told.started_s if told.started_s is not None else 1010.0)


def test_want_of_machines_is_the_clouds_fault_and_costs_nothing(training):
    told = TrainingStatus("stopped", "InsufficientCapacity", None, 1100.0, capacity=True)
    record = next_step(training(told), around(1110.0)).record
    assert (record.status, record.cause) == (JobStatus.FAILED, "capacity")
    assert record.reason == "waited for capacity: InsufficientCapacity"
    assert (record.started_s, record.cost_usd) == (None, 0.0)
    blamed = next_step(training(TrainingStatus("failed", "oom", 1010.0, 1100.0)), around(1110.0)).record
    assert blamed.cause == ""


# --- succeeded


def test_all_steps_that_can_be_taken_are_taken_in_one_look(training, model):
    told = TrainingStatus("succeeded", "", 1010.0, 1050.0)
    step = next_step(dataclasses.replace(training(told), model=model()), around(1060.0))
    assert [record.status for record in step.path] == [JobStatus.SUCCEEDED, JobStatus.ACCEPTED]
    assert step.record.model_version == NEW
    assert (step.record.updated_s, step.stop) == (1060.0, False)
    assert step.path[0].reason == ""


def test_a_model_that_is_not_judged_yet_waits(training, model):
    told = TrainingStatus("succeeded", "", 1010.0, 1050.0)
    unknown = {"aws": Unread("throttled"), "azure": HOSTS["azure"]}
    step = next_step(dataclasses.replace(training(told), model=model()), around(1060.0, hosts=unknown))
    assert step.record.status is JobStatus.SUCCEEDED
    assert step.record.waits == {"gate": "it is not known what serves: throttled"}


def test_a_finished_job_has_its_deadline_again_to_show_an_artifact(succeeded):
    assert next_step(succeeded(None), around(1150.0)) is None
    step = next_step(succeeded(None), around(1150.1))
    assert (step.record.status, step.record.finished_s) == (JobStatus.FAILED, 1050.0)
    waiting = next_step(succeeded(Unread("403 Forbidden")), around(1150.0))
    assert waiting.record.waits == {"artifact": "403 Forbidden"}
    late = next_step(succeeded(Unread("403 Forbidden")), around(1150.1))
    assert late.record.reason == "the model artifact cannot be read: 403 Forbidden"
    assert not late.stop, "there is nothing to stop any more"


def test_time_under_a_pause_does_not_count(succeeded):
    missing = succeeded(None)
    assert next_step(missing, around(9999.0, held="paused")) is None
    assert next_step(missing, around(1400.0, switched_s=1300.0)) is None, "the deadline begins when it is resumed"
    assert next_step(missing, around(1400.1, switched_s=1300.0)).record.status is JobStatus.FAILED


def test_an_unusable_artifact_ends_the_job(succeeded):
    broken = next_step(succeeded(Unusable("no manifest.json")), around(1060.0))
    assert broken.record.status is JobStatus.FAILED
    assert broken.record.reason == "the model artifact is unusable: no manifest.json"


def test_a_model_is_judged_against_what_is_known_to_serve(succeeded, model):
    unknown = {"aws": Unread("throttled"), "azure": HOSTS["azure"]}
    waiting = next_step(succeeded(model()), around(1150.0, hosts=unknown))
    assert waiting.record.waits == {"gate": "it is not known what serves: throttled"}
    late = next_step(succeeded(model()), around(1150.1, hosts=unknown))
    assert late.record.status is JobStatus.FAILED
    assert late.record.reason == "not judged, as it is not known what serves: throttled"


def test_the_gates_word_is_kept_either_way(succeeded, model):
    waits = {"gate": "it is not known what serves: throttled"}
    better, worse = (next_step(succeeded(model(q), waits=waits), around(1060.0)) for q in (0.8, 0.4))
    assert (better.record.status, worse.record.status) == (JobStatus.ACCEPTED, JobStatus.REJECTED)
    assert (better.record.waits, worse.record.waits) == ({}, {})
    assert worse.record.model_version == NEW


@pytest.mark.parametrize("before", [True, False])
def test_an_endpoint_without_a_version_is_new_only_if_it_never_served(succeeded, model, before):
    hosts = {"aws": HostState(None, "http://aws", reason="being created"), "azure": HOSTS["azure"]}
    served = frozenset({"aws"} if before else {"azure"})
    told = serving_version("aws", around(1060.0, hosts=hosts, served_before=served))
    assert told == (Unread("being created") if before else None)
    step = next_step(succeeded(model(serving=None)), around(1060.0, hosts=hosts, served_before=served))
    assert step.record.status is (JobStatus.SUCCEEDED if before else JobStatus.ACCEPTED)


def test_an_endpoint_that_lost_its_version_without_a_word_is_asked_about():
    hosts = {"aws": HostState(None, "http://aws")}
    told = serving_version("aws", around(0.0, hosts=hosts, served_before=frozenset({"aws"})))
    assert isinstance(told, Unread) and "names no version" in told.reason
    assert serving_version("aws", around(0.0, served_before=frozenset({"aws"}))) == BASE
    assert isinstance(serving_version("azure", around(0.0, hosts=hosts)), Unread)
    waking = {"aws": on(None, "m7", updating=True, reason="no instance has told its state")}
    assert serving_version("aws", around(0.0, hosts=waking)) == Unread("no instance has told its state")


def test_nothing_is_judged_while_another_release_is_being_loaded():
    def told(host):
        return serving_version("aws", around(0.0, hosts={"aws": host}))

    assert told(on(BASE, "m7", updating=True)) == Unread("the release of m7 is still being loaded")
    assert told(on(BASE, "m7")) == BASE, "it could not be loaded"
    assert told(on("m7", "m7")) == "m7"


# --- accepted


def hosts(**versions: str | None) -> dict[str, HostState]:
    return {cloud: HostState(version, f"http://{cloud}") for cloud, version in versions.items()}


def test_a_model_is_live_when_every_endpoint_serves_it(accepted):
    assert next_step(accepted(), around(1060.0)) is None
    assert next_step(accepted(), around(1060.0, hosts=hosts(aws=NEW, azure=BASE))) is None
    waits = {"azure": "throttled"}
    step = next_step(accepted(waits=waits), around(1060.0, hosts=hosts(aws=NEW, azure=NEW)))
    assert (step.record.status, step.record.updated_s, step.record.waits) == (JobStatus.LIVE, 1060.0, {})
    assert step.record.reason == "better", "why it was accepted stays"


def test_it_is_live_with_those_that_serve_it_once_the_others_had_their_deadline(accepted):
    half = hosts(aws=NEW, azure=BASE)
    assert next_step(accepted(), around(1150.0, hosts=half)) is None
    step = next_step(accepted(waits={"azure": "throttled"}), around(1150.1, hosts=half))
    assert (step.record.status, step.record.finished_s) == (JobStatus.LIVE, 1050.0)
    assert step.record.reason == "better; azure did not serve m1 within 100 s; azure: throttled"


def test_it_fails_when_none_serves_it_in_time(accepted):
    step = next_step(accepted(), around(1150.1))
    assert step.record.status is JobStatus.FAILED
    assert step.record.reason == "aws and azure did not serve m1 within 100 s"
    assert next_step(accepted(), around(1400.0, switched_s=1300.0)) is None, "its time begins when it is resumed"
    assert next_step(accepted(finished_s=None), around(1100.0)) is None
    assert next_step(accepted(finished_s=None), around(1100.1)).record.status is JobStatus.FAILED


def test_while_a_person_holds_releases_it_waits_and_says_so(accepted):
    held = next_step(accepted(), around(9999.0, held="freeze", hosts=hosts(aws=NEW, azure=NEW)))
    assert (held.record.status, held.record.waits) == (JobStatus.ACCEPTED, {"release": "freeze"})
    resumed = next_step(accepted(waits={"release": "freeze"}), around(1060.0))
    assert (resumed.record.status, resumed.record.waits) == (JobStatus.ACCEPTED, {})


def on(version: str | None, stable: str, previous: str | None = None, **changes: Any) -> HostState:
    """An endpoint and its release, which `changed_s` says when it was made: at 1055 unless told."""
    roles = {"stable": stable} | ({"previous": previous} if previous else {})
    versions = tuple(ReleasedVersion(model_version=name, role=role) for role, name in roles.items())  # type: ignore[arg-type]
    changed_s = changes.pop("changed_s", 1055.0)
    release = Release(service="qa", revision=3, versions=versions, changed_s=changed_s, reason="by anna: slow")
    return HostState(version, "http://x", release=release, **changes)


def test_an_endpoint_that_cannot_answer_is_not_waited_for(accepted):
    broken = {"aws": HOSTS["aws"], "azure": HostState(None, "", healthy=False, reason="it is Failed: no machine")}
    step = next_step(accepted(), around(1060.0, hosts=broken))
    assert (step.record.status, step.record.refused) == (JobStatus.ACCEPTED, {"azure": "it is Failed: no machine"})
    live = next_step(accepted(), around(1060.0, hosts={**broken, "aws": on(NEW, NEW)}))
    assert (live.record.status, live.record.reason) == (
        JobStatus.LIVE,
        "better; azure refused it: it is Failed: no machine",
    )
    mending = {**broken, "azure": broken["azure"]._replace(updating=True)}
    assert next_step(accepted(), around(1060.0, hosts=mending)) is None
    serves = {**broken, "azure": on(NEW, NEW, healthy=False)}
    assert next_step(accepted(), around(1060.0, hosts=serves)) is None, "it has loaded it, ill as it is"


def test_a_release_that_went_back_is_not_asked_for_again(accepted):
    """The host takes one back that no instance could load; the run that heard why may have died before writing it."""
    gone = {"aws": on(NEW, NEW), "azure": on(BASE, BASE, changed_s=1058.0)}
    step = next_step(accepted(updated_s=1054.0, asked={"azure": 1}), around(1060.0, hosts=gone))
    assert step.record.status is JobStatus.LIVE
    assert step.record.reason == "better; azure refused it: base was released instead (by anna: slow)"
    silent = {**gone, "azure": Unread("throttled")}
    assert next_step(accepted(asked={"azure": 1}), around(1060.0, hosts=silent)) is None


@pytest.mark.parametrize(
    ("host", "asked", "ends"),
    [
        (on(NEW, BASE, NEW), {"aws": 1}, True),  # rolled back, not in force yet
        (on(BASE, BASE, NEW), {}, True),  # rolled back before the record said that it was asked for
        (on(BASE, "m7", BASE, changed_s=1055.0), {}, True),  # another one released after this was accepted
        (on(BASE, "m7", BASE, changed_s=1054.0), {}, False),  # before: the gate has compared with it, or will
        (on(BASE, NEW, BASE), {"aws": 1}, False),
        (HOSTS["aws"], {"aws": 1}, False),
    ],
)
def test_what_a_person_released_or_rolled_back_is_not_undone_by_a_job_accepted_before(accepted, host, asked, ends):
    view = accepted(updated_s=1054.0, asked=asked)
    around_it = around(1060.0, hosts={"aws": host, "azure": HOSTS["azure"]})
    step = next_step(view, around_it)
    assert (step is not None) is ends
    if step is not None:
        assert step.record.status is JobStatus.STOPPED
        assert step.record.reason.startswith("taken back on aws: ")
        assert step.record.reason.endswith(" was released instead (by anna: slow)")
        assert releases(step.record, around_it) == []


def test_a_refusal_by_all_is_a_failure_at_once_and_by_one_a_note_for_later(accepted):
    both = {"aws": "no such file", "azure": "out of memory"}
    step = next_step(accepted(refused=both), around(1060.0))
    assert step.record.status is JobStatus.FAILED
    assert step.record.reason == "aws refused it: no such file; azure refused it: out of memory"
    loading = {"aws": on(BASE, NEW, updating=True, reason="no instance told"), "azure": HOSTS["azure"]}
    noted = accepted(refused={"azure": "out of memory"})
    assert next_step(noted, around(1150.0, hosts=loading)) is None, "the other one may still load it"
    late = next_step(noted, around(1150.1, hosts=loading)).record.reason
    assert late == "azure refused it: out of memory; aws did not serve m1 within 100 s; aws: no instance told"


def test_who_is_asked_to_load_a_model_now(accepted):
    def asked(record: JobRecord, **changes: Any) -> list[str]:
        return [str(cloud) for cloud in releases(record, around(1060.0, **changes))]

    record = accepted().held.record
    assert asked(record) == ["aws", "azure"]
    assert asked(record, held="freeze") == []
    assert asked(msgspec.structs.replace(record, status=JobStatus.SUCCEEDED)) == []
    assert asked(record, hosts=hosts(aws=NEW, azure=BASE)) == ["azure"], "one serves it"
    assert asked(record, hosts={**HOSTS, "aws": Unread("throttled")}) == ["azure"]
    assert asked(record, hosts={**HOSTS, "aws": HostState(BASE, "", updating=True)}) == ["aws", "azure"]
    assert asked(msgspec.structs.replace(record, refused={"azure": "out of memory"})) == ["aws"]
    assert asked(msgspec.structs.replace(record, asked_s={"azure": 1060.0, "aws": 1000.0})) == ["aws"], "once a run"
    assert asked(record, hosts={**HOSTS, "aws": on(BASE, NEW, updating=True)}) == ["azure"], "it is at it"
    assert asked(record, hosts={**HOSTS, "aws": on(BASE, NEW)}) == ["aws", "azure"], "it gave up, and is to say why"
    assert asked(record, hosts={**HOSTS, "aws": on(None, "m7", updating=True)}) == ["aws", "azure"], "no one is there"


# --- stopped by a person


@pytest.mark.parametrize(
    ("status", "asks"),
    [
        (JobStatus.CLAIMED, True),
        (JobStatus.TRAINING, True),
        (JobStatus.SUCCEEDED, False),
        (JobStatus.ACCEPTED, False),
    ],
)
def test_a_person_ends_a_job_in_any_state_and_the_training_service_is_told_if_it_may_run(seen, model, status, asks):
    view = seen(status, RUNNING, model(), model_version=NEW)
    step = next_step(view, around(1060.0, stopped=frozenset({"qa-1"}), hosts=hosts(aws=NEW, azure=NEW)))
    assert (step.record.status, step.record.reason) == (JobStatus.STOPPED, "stopped by a person")
    assert (step.stop, step.record.finished_s) == (asks, 1060.0)
    assert next_step(seen(JobStatus.TRAINING, RUNNING), around(1060.0, stopped=frozenset({"qa-2"}))) is None


@pytest.mark.parametrize("status", [JobStatus.LIVE, JobStatus.REJECTED, JobStatus.FAILED, JobStatus.STOPPED])
def test_what_is_over_stays_as_it_is(seen, status):
    assert next_step(seen(status, RUNNING), around(9999.0, stopped=frozenset({"qa-1"}))) is None
