import msgspec
import pytest

from shared.contracts import Endpoint, JobRecord, JobStatus, RouteTable
from shared.errors import ConflictError
from shared.records import Control, JobTotals, Unreadable
from shared.state import State
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
        assert [r.job.job_id for r in state.jobs(service).records] == ids
        assert [r.job.job_id for r in state.jobs(service, since=ids[1]).records] == ids[1:]


def test_more_jobs_than_fit_a_page_are_all_listed_once(state, record):
    ids = [f"qa-{n:04d}" for n in range(450)]
    for job_id in reversed(ids):
        state.claim(record(job_id=job_id))
    assert [r.job.job_id for r in state.jobs("qa").records] == ids
    assert [r.job.job_id for r in state.jobs("qa", since=ids[50]).records] == ids[50:]


def test_totals_read_before_somebody_elses_are_not_written(state):
    assert state.service("qa", "").totals is None
    state.put_totals("qa", JobTotals(through="qa-1", live=1), if_etag=None)
    read = state.service("qa", "")
    assert read.totals.live == 1
    state.put_totals("qa", JobTotals(through="qa-2", live=2), if_etag=read.etags["tally"])
    for stale in (None, read.etags["tally"]):
        with pytest.raises(ConflictError):
            state.put_totals("qa", JobTotals(through="qa-9"), if_etag=stale)
    assert state.service("qa", "").totals.through == "qa-2"


def test_a_route_table_read_before_somebody_elses_is_not_written(state):
    assert state.put_routes(table(1, 0.0), if_etag=None)
    etag = state.service("qa", "").etags["routes"]
    assert state.put_routes(table(2, 10.0), if_etag=etag)
    assert not state.put_routes(table(3, 11.0), if_etag=etag)
    assert not state.put_routes(table(3, 11.0), if_etag=None)
    assert state.routes("qa") == table(2, 10.0)


@pytest.mark.parametrize(
    ("body", "newer"),
    [
        (b"{oops", False),
        (b'"a text"', False),
        (b"{}", False),
        (b"[" * 100_000, False),
        (b'{"version": 99}', True),
        (b'{"epoch": ' + b"9" * 5000 + b"}", False),
    ],
)
def test_a_document_that_cannot_be_read_is_told_beside_the_others(state, record, body, newer):
    state.set_control("qa", Control(paused=True, reason="freeze"))
    state.claim(record(job_id="qa-1"))
    for kind in ("routes", "tally", "decision"):
        state._documents.put(kind, "d" if kind == "decision" else "qa", body)
    state._documents.put("job", "qa-2", body)
    state._documents.put("lock", "qa", body)
    read = state.service("qa", "d")
    for unreadable in (read.routes, read.totals, read.decision, state.lock("qa")[0], state.jobs("qa").unreadable[0]):
        if body == b"{}" and unreadable in (read.totals,):
            continue  # totals have a default for everything
        assert isinstance(unreadable, Unreadable) and unreadable.newer is newer
        assert unreadable.reason
    assert read.control.paused
    assert [r.job.job_id for r in state.jobs("qa").records] == ["qa-1"]


def test_a_write_whose_answer_was_lost_is_ones_own(state, record):
    held = state.claim(record())
    training = msgspec.structs.replace(record(), status=JobStatus.TRAINING)
    state.update(held, training)
    assert state.update(held, training).record == training, "the library sent it again after it had been applied"


def test_a_service_is_not_paused_until_somebody_pauses_it(state):
    assert not state.control("qa").paused
    state.set_control("qa", Control(paused=True, reason="freeze"))
    assert state.control("qa") == Control(paused=True, reason="freeze")
    assert not state.control("faq").paused
