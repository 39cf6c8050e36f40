import dataclasses

import pytest

from functions.retraining.history import job_history
from functions.retraining.start import start_training
from functions.scheduling.read import read
from functions.scheduling.tick import tick, training_finished
from shared.contracts import JobStatus
from shared.errors import ModelError, NotFoundError, UnavailableError
from tests.fakes import MemoryHost, memory_cloud

JOB = "qa-20270115t080000"


@pytest.fixture
def trained(world, job, now, artifact):
    """A world whose job has just finished training successfully."""
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB), started_s=now + 10, finished_s=now + 910)
    return world


def test_a_better_model_goes_live_on_both_clouds(trained, now):
    record = training_finished(trained.deps(), JOB, now + 920)
    assert record.status is JobStatus.LIVE
    assert trained.host("aws").version == trained.host("azure").version == record.model_version
    assert "quality 0.800" in record.reason and "0.500" in record.reason
    for cloud in ("aws", "azure"):
        lies = {e.key for e in trained.clouds[cloud].objects.entries("models/")}
        assert lies == {f"models/{record.model_version}/{name}" for name in ("model.safetensors", "manifest.json")}
        table = trained.state(cloud).routes("qa")
        assert {e.cloud: e.model_version for e in table.endpoints} == dict.fromkeys(
            ("aws", "azure"), record.model_version
        )
        assert table.trace_id == record.job.trace_id, "the route change belongs to the decision's trace"


def test_a_model_that_is_ready_within_the_slot_of_its_decision_is_routed_to_at_once(world, now, artifact):
    tick(world.deps(), now)
    start_training(world.deps(), world.queue().messages[0], now + 1)
    world.training().finish(JOB, artifact=artifact(JOB))
    record = training_finished(world.deps(), JOB, now + 20)
    table = world.state("azure").routes("qa")
    assert {e.model_version for e in table.endpoints} == {record.model_version}
    assert table.heartbeat_s == now, "an event is no sign of life of the scheduler"


def test_cost_is_the_billed_time_at_list_price(trained, now):
    record = training_finished(trained.deps(), JOB, now + 920)
    assert record.cost_usd == pytest.approx(900 / 3600 * 0.736)
    assert (record.started_s, record.finished_s) == (now + 10, now + 910)


def test_cost_counts_simulated_time(trained, now):
    assert training_finished(trained.deps(time_scale=20.0), JOB, now + 920).cost_usd == pytest.approx(5 * 0.736)


def test_repeated_events_change_nothing(trained, now):
    first = training_finished(trained.deps(), JOB, now + 920)
    assert training_finished(trained.deps(), JOB, now + 990) == first
    assert trained.host().deployed == [first.model_version]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidate": 0.4}, "worse than the serving model"),
        ({"candidate": (0.9, 3), "serving": (0.5, 3)}, "only 3 evaluation examples"),
        ({"serving": (0.5, 39)}, "different sets"),
        ({"parent_version": "m-other"}, "compared with m-other"),
    ],
)
def test_the_gate_keeps_a_model_out_and_says_why(world, job, now, artifact, metrics_with, changes, words):
    def made(value):
        return value if isinstance(value, str) else metrics_with(*(value if isinstance(value, tuple) else (value,)))

    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB, **{name: made(value) for name, value in changes.items()}))
    record = training_finished(world.deps(), JOB, now + 920)
    assert record.status is JobStatus.REJECTED
    assert words in record.reason
    assert not list(world.clouds["aws"].objects.entries("models/")), "it stays where the job left it"
    assert world.host().version == "base"


def test_a_margin_lets_a_slightly_worse_model_pass(world, job, now, artifact, metrics_with):
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=artifact(JOB, candidate=metrics_with(0.45)))
    assert training_finished(world.deps(gate_margin=0.1), JOB, now + 920).status is JobStatus.LIVE


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda _: None, "no model artifact"),
        (lambda files: {"model.tar.gz": b"packed"}, "no manifest.json"),
        (lambda files: files | {"manifest.json": b"{oops"}, "not JSON"),
        (lambda files: files | {"manifest.json": b" " * 1_048_577}, "1048576 are allowed"),
        (lambda files: files | {f"f{n}": b"" for n in range(1000)}, "more than 1000 files"),
        (lambda files: {"manifest.json": files["manifest.json"]}, "lacks model.safetensors"),
    ],
)
def test_an_unusable_artifact_fails_the_job_with_the_reason(world, job, now, artifact, changed, words):
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, artifact=changed(artifact(JOB)))
    record = training_finished(world.deps(), JOB, now + 920)
    assert record.status is JobStatus.FAILED
    assert words in record.reason


@pytest.mark.parametrize(("state", "status"), [("failed", JobStatus.FAILED), ("stopped", JobStatus.STOPPED)])
def test_what_the_training_service_says_is_recorded(world, job, now, state, status):
    start_training(world.deps(), world.message(), now)
    world.training().finish(JOB, state=state, reason="CUDA out of memory", started_s=now, finished_s=now + 36)
    record = training_finished(world.deps(), JOB, now + 920)
    assert (record.status, record.reason) == (status, "CUDA out of memory")
    assert record.cost_usd == pytest.approx(0.01 * 0.736)


def test_an_event_of_somebody_elses_job_is_ignored(world, now):
    assert training_finished(world.deps(), "not-ours", now) is None


def test_an_event_that_comes_too_early_changes_nothing(world, job, now):
    start_training(world.deps(), world.message(), now)
    assert training_finished(world.deps(), JOB, now + 1).status is JobStatus.TRAINING


def test_loading_takes_several_looks(trained, now):
    trained.clouds["azure"] = trained.clouds["azure"]._replace(host=MemoryHost(loading_calls=2))
    seen = [training_finished(trained.deps(), JOB, now + 920 + n).status for n in range(4)]
    assert seen == [JobStatus.ACCEPTED, JobStatus.ACCEPTED, JobStatus.LIVE, JobStatus.LIVE]


def test_a_cloud_that_never_loads_it_does_not_hold_up_the_other_for_ever(trained, now):
    trained.clouds["azure"] = trained.clouds["azure"]._replace(host=MemoryHost(loading_calls=10**6))
    assert training_finished(trained.deps(), JOB, now + 920).status is JobStatus.ACCEPTED
    record = training_finished(trained.deps(), JOB, now + 910 + 3601)
    assert record.status is JobStatus.LIVE
    assert "azure did not serve" in record.reason


def test_a_model_no_endpoint_can_load_fails(trained, now):
    class Broken(MemoryHost):
        def deploy(self, model_version):
            raise ModelError("config.json is missing")

    trained.clouds["aws"] = trained.clouds["aws"]._replace(host=Broken())
    record = training_finished(trained.deps(), JOB, now + 920)
    assert record.status is JobStatus.FAILED
    assert "config.json is missing" in record.reason


def test_an_endpoint_that_is_not_there_is_skipped_until_the_deadline(trained, now):
    class Missing(MemoryHost):
        def state(self):
            raise NotFoundError("endpoint does not exist")

    trained.clouds["azure"] = trained.clouds["azure"]._replace(host=Missing())
    assert training_finished(trained.deps(), JOB, now + 920).status is JobStatus.ACCEPTED
    assert trained.host("aws").version != "base"


def test_a_job_the_training_service_forgot_fails(world, job, now):
    start_training(world.deps(), world.message(), now)
    world.training()._statuses.clear()
    assert training_finished(world.deps(), JOB, now + 5).status is JobStatus.FAILED


def test_a_job_that_outlives_its_deadline_twice_is_stopped(world, job, now):
    start_training(world.deps(), world.message(), now)
    record = training_finished(world.deps(), JOB, now + 7201)
    assert record.status is JobStatus.STOPPED
    assert world.training().status(JOB).state == "stopped"


def test_a_crash_between_any_two_steps_is_repaired_by_the_next_event(crash_everywhere, world, job, now, artifact):
    def fresh():
        clouds = {"aws": memory_cloud("aws"), "azure": memory_cloud("azure")}
        other = dataclasses.replace(world, clouds=clouds)
        other.label("aws", 0, 10)
        start_training(other.deps(), other.message(), now)
        other.training().finish(JOB, artifact=artifact(JOB))
        return other

    def check(other):
        record = other.state().job(JOB).record
        assert record.status is JobStatus.LIVE
        assert other.host("aws").version == other.host("azure").version == record.model_version

    crashes = crash_everywhere(fresh, lambda _, deps: training_finished(deps, JOB, now + 920), check)
    assert crashes >= 40, "the sweep must reach every port call"


def test_jobs_of_both_clouds_are_listed_and_a_silent_cloud_is_named(world, now):
    start_training(world.deps(), world.message(), now)

    class Down:
        def __getattr__(self, name):
            raise UnavailableError("Azure table", "timed out")

    world.clouds["azure"] = world.clouds["azure"]._replace(documents=Down())
    view = read(world.deps(), now, observe=False)
    assert [r.job.job_id for r in job_history(view.clouds).jobs()] == [JOB]
    assert "timed out" in view.conditions()["azure documents"]
