import msgspec
import pytest

from shared.contracts import Endpoint, JobRecord, JobStatus, RouteTable
from shared.errors import ConflictError
from shared.records import Control, State, Tally
from tests.fakes import MemoryDocuments


@pytest.fixture
def state():
    return State(MemoryDocuments())


@pytest.fixture
def record(a_job):
    """A function: job -> its record after it was claimed."""

    def make(**job):
        return JobRecord(job=a_job(**job), status=JobStatus.CLAIMED, updated_s=0.0)

    return make


def table(epoch, heartbeat_s):
    endpoint = Endpoint(cloud="aws", url="http://a", model_version="m1")
    return RouteTable(
        service="qa",
        epoch=epoch,
        published_s=0.0,
        scheduler="aws",
        heartbeat_s=heartbeat_s,
        endpoints=(endpoint,),
        trace_id="0" * 32,
    )


def test_a_job_is_claimed_once(state, record):
    state.claim(record())
    with pytest.raises(ConflictError):
        state.claim(record())


def test_a_record_changed_meanwhile_is_not_overwritten(state, record):
    held = state.claim(record())
    state.update(held, msgspec.structs.replace(record(), status=JobStatus.TRAINING))
    with pytest.raises(ConflictError):
        state.update(held, msgspec.structs.replace(record(), status=JobStatus.FAILED))
    assert state.job("qa-1").record.status is JobStatus.TRAINING


def test_jobs_are_listed_per_service(state, record):
    for service in ("faq", "qa", "qa-2", "zoo"):
        for n in (1, 2):
            state.claim(record(job_id=f"{service}-2027011{n}t080000", service=service))
    for service in ("faq", "qa", "qa-2", "zoo"):
        ids = [f"{service}-2027011{n}t080000" for n in (1, 2)]
        assert [r.job.job_id for r in state.jobs(service)] == ids
        assert [r.job.job_id for r in state.jobs(service, since=ids[1])] == ids[1:]


def test_more_jobs_than_fit_a_page_are_all_listed_once(state, record):
    ids = [f"qa-{n:04d}" for n in range(450)]
    for job_id in reversed(ids):
        state.claim(record(job_id=job_id))
    assert [r.job.job_id for r in state.jobs("qa")] == ids
    assert [r.job.job_id for r in state.jobs("qa", since=ids[50])] == ids[50:]


def test_a_tally_read_before_somebody_elses_is_not_written(state):
    assert state.tally("qa") == (Tally(), None)
    state.put_tally("qa", Tally(through="qa-1", live=1), if_etag=None)
    tally, etag = state.tally("qa")
    assert tally.live == 1
    state.put_tally("qa", Tally(through="qa-2", live=2), if_etag=etag)
    for stale in (None, etag):
        with pytest.raises(ConflictError):
            state.put_tally("qa", Tally(through="qa-9"), if_etag=stale)
    assert state.tally("qa")[0].through == "qa-2"


@pytest.mark.parametrize(
    ("epoch", "heartbeat_s", "wins"),
    [(1, 0.0, False), (2, 9.0, False), (2, 10.0, True), (2, 11.0, True), (3, 0.0, True)],
)
def test_an_older_route_table_never_replaces_a_newer_one(state, epoch, heartbeat_s, wins):
    state.publish(table(2, 10.0))
    assert state.publish(table(epoch, heartbeat_s)) is wins
    assert state.routes("qa") == (table(epoch, heartbeat_s) if wins else table(2, 10.0))


def test_a_service_is_not_paused_until_somebody_pauses_it(state):
    assert not state.control("qa").paused
    state.set_control("qa", Control(paused=True, reason="freeze"))
    assert state.control("qa") == Control(paused=True, reason="freeze")
    assert not state.control("faq").paused
