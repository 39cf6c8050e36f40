"""What every implementation of a port promises, run over memory, moto and Azurite alike."""

import secrets
import threading

import pytest

from shared.contracts import TrainingJob, decode
from shared.errors import ConflictError, NotFoundError

pytestmark = pytest.mark.xdist_group("clouds")


@pytest.fixture
def kind():
    """A kind of documents that no other test writes."""
    return f"kind{secrets.token_hex(4)}"


def test_a_document_comes_back_as_it_was_written(documents, kind):
    assert documents.get(kind, "a") is None
    etag = documents.put(kind, "a", b"\x00\xffone")
    assert documents.get(kind, "a") == (b"\x00\xffone", etag)
    documents.put(kind, "a", b"two")
    assert documents.get(kind, "a").body == b"two"


def test_only_the_first_writer_creates(documents, kind):
    documents.put(kind, "a", b"first", if_absent=True)
    with pytest.raises(ConflictError):
        documents.put(kind, "a", b"second", if_absent=True)
    assert documents.get(kind, "a").body == b"first"


def test_a_writer_who_read_an_older_document_loses(documents, kind):
    old = documents.put(kind, "a", b"1")
    new = documents.put(kind, "a", b"2", if_etag=old)
    with pytest.raises(ConflictError):
        documents.put(kind, "a", b"3", if_etag=old)
    documents.put(kind, "a", b"4", if_etag=new)
    assert documents.get(kind, "a").body == b"4"


def test_replacing_what_does_not_exist_is_a_conflict(documents, kind):
    etag = documents.put(kind, "a", b"1")
    with pytest.raises(ConflictError):
        documents.put(kind, "never", b"2", if_etag=etag)
    assert documents.get(kind, "never") is None


def test_of_many_creators_at_once_one_wins(documents, kind):
    won = []

    def create(number):
        try:
            documents.put(kind, "a", str(number).encode(), if_absent=True)
            won.append(number)
        except ConflictError:
            pass

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert documents.get(kind, "a").body == str(won[0]).encode()


def test_a_query_is_ordered_bounded_and_of_one_kind(documents, kind):
    for number in (3, 1, 2, 10):
        documents.put(kind, f"k{number:02}", str(number).encode())
    documents.put(f"{kind}x", "k00", b"other")
    assert [key for key, _ in documents.query(kind)] == ["k01", "k02", "k03", "k10"]
    assert documents.query(kind, since="k02", limit=2) == [("k02", b"2"), ("k03", b"3")]
    assert documents.query(kind, since="k11") == []


def test_a_query_goes_beyond_one_page(documents, kind):
    body = bytes(50_000)
    for number in range(30):  # 1.5 MB: over the page limit of DynamoDB
        documents.put(kind, f"k{number:02}", body)
    assert len(documents.query(kind)) == 30


def test_an_object_comes_back_and_can_be_replaced(objects):
    objects.put("a/b.bin", b"\x00one")
    objects.put("a/b.bin", b"\x00two")
    assert objects.get("a/b.bin") == b"\x00two"
    assert objects.uri("a/b.bin").endswith("/a/b.bin")


def test_a_missing_object_is_not_found(objects):
    with pytest.raises(NotFoundError, match="no/such"):
        objects.get("no/such")


def test_keys_are_listed_below_a_prefix_in_order(objects):
    for key in ("list/b", "list/a", "listing", "list/c/d"):
        objects.put(key, b"")
    assert list(objects.list("list/")) == ["list/a", "list/b", "list/c/d"]


def test_an_enqueued_job_arrives_as_it_was_sent(queue, a_job):
    job = a_job(hyperparameters={"epochs": "5"})
    queue.queue.enqueue(job)
    (body,) = queue.bodies()
    assert decode(TrainingJob, body) == job


@pytest.mark.parametrize("body", ["{oops", "grüße \N{SNOWMAN}", "", "nul\x00led"])
def test_a_dead_letter_keeps_body_and_reason(queue, body):
    queue.queue.dead_letter(body, "TrainingJob: not JSON")
    ((kept, reason),) = queue.dead()
    assert reason == "TrainingJob: not JSON"
    # SQS takes neither an empty body nor control characters.
    assert kept in (body, body.replace("\x00", "\N{REPLACEMENT CHARACTER}"), "(empty)")


def test_a_dead_letter_is_read_back_with_its_reason_and_forgotten(queue):
    queue.queue.dead_letter("{oops", "TrainingJob: not JSON")
    (letter,) = queue.queue.dead_letters()
    assert (letter.body, letter.reason) == ("{oops", "TrainingJob: not JSON")
    queue.queue.forget(letter)
    assert queue.queue.dead_letters() == []


def test_a_dead_letter_that_is_left_is_counted_while_hidden_and_shown_again_when_released(queue):
    before = queue.queue.dead_letter_count()
    queue.queue.dead_letter("{oops", "TrainingJob: not JSON")
    (letter,) = queue.queue.dead_letters(60)
    assert queue.queue.dead_letters(60) == []
    assert queue.queue.dead_letter_count() == before + 1
    queue.queue.release(letter)
    (again,) = queue.queue.dead_letters(60)
    assert (again.body, again.reason) == ("{oops", "TrainingJob: not JSON")
    queue.queue.forget(again)
    assert queue.queue.dead_letter_count() == before


def test_the_depth_counts_waiting_jobs(queue, a_job):
    before = queue.queue.depth()
    queue.queue.enqueue(a_job())
    assert queue.queue.depth() == before + 1
    queue.bodies()


def test_several_documents_at_once(documents):
    etag = documents.put("many", "one", b"1")
    documents.put("other", "one", b"\x00\xff")
    found = documents.get_many([("many", "one"), ("other", "one"), ("many", "absent")])
    assert found == {("many", "one"): (b"1", etag), ("other", "one"): (b"\x00\xff", documents.get("other", "one").etag)}
