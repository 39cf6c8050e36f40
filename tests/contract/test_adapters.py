"""What every implementation of a port promises, run over memory, moto and Azurite alike."""

import secrets
import threading
import time

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


def test_objects_are_listed_below_a_prefix_in_order_with_size_and_time(objects):
    for key in ("list/b", "list/a", "listing", "list/c/d"):
        objects.put(key, key.encode())
    found = list(objects.entries("list/"))
    assert [(entry.key, entry.size) for entry in found] == [("list/a", 6), ("list/b", 6), ("list/c/d", 8)]
    assert all(abs(entry.modified_s - time.time()) < 600 for entry in found)
    assert list(objects.entries("no/such/")) == []


def test_a_tag_tells_whether_an_object_changed(objects):
    objects.put("tag/a", b"1")
    body, tag = objects.get_tagged("tag/a")
    assert body == b"1"
    assert objects.get_tagged("tag/a", if_none_match=tag) is None
    objects.put("tag/a", b"2")
    newer = objects.get_tagged("tag/a", if_none_match=tag)
    assert newer.body == b"2" and newer.etag != tag
    with pytest.raises(NotFoundError, match="tag/none"):
        objects.get_tagged("tag/none", if_none_match=tag)


def test_of_two_who_replace_an_object_the_one_who_read_an_older_one_loses(objects, kind):
    key = f"release/{kind}.json"
    old = objects.put_tagged(key, b"1", if_etag=None)
    with pytest.raises(ConflictError):
        objects.put_tagged(key, b"mine", if_etag=None)
    new = objects.put_tagged(key, b"2", if_etag=old)
    with pytest.raises(ConflictError):
        objects.put_tagged(key, b"3", if_etag=old)
    assert objects.get_tagged(key) == (b"2", new)
    assert objects.put_tagged(key, b"4", if_etag=new) != new
    with pytest.raises(ConflictError):
        objects.put_tagged(f"{key}.none", b"5", if_etag=new)
    with pytest.raises(NotFoundError):
        objects.get(f"{key}.none")


def test_a_range_ends_where_the_object_does(objects):
    objects.put("range/a", b"0123456789")
    assert objects.get_range("range/a", 2, 3) == b"234"
    assert objects.get_range("range/a", 8, 100) == b"89"
    assert objects.get_range("range/a", 10, 5) == b""
    with pytest.raises(NotFoundError, match="range/none"):
        objects.get_range("range/none", 0, 5)


def test_a_copy_is_the_same_and_of_what_is_missing_there_is_none(objects):
    objects.put("copy/it's 50% a+b", b"\x00weights")
    objects.put("copy/into", b"old")
    objects.copy("copy/it's 50% a+b", "copy/into")
    assert objects.get("copy/into") == b"\x00weights"
    with pytest.raises(NotFoundError, match="copy/none"):
        objects.copy("copy/none", "copy/nowhere")
    assert list(objects.entries("copy/nowhere")) == []


#: the least that S3 takes as a part, but for the last
PART = 5 * 1024 * 1024


def test_an_upload_in_parts_goes_on_where_it_stopped_and_is_unseen_until_it_is_finished(objects, kind):
    key, first, last = f"parts/{kind}", b"a" * PART, b"the end"
    assert objects.parts(key) == {}
    objects.put_part(key, 2, last)
    assert objects.parts(key) == {2: len(last)}, "in whatever order"
    with pytest.raises(NotFoundError, match="part 1 of 2"):
        objects.finish_parts(key, 2)
    objects.put_part(key, 1, b"x" * PART)
    objects.put_part(key, 1, first)
    assert objects.parts(key) == {1: PART, 2: len(last)}, "the same part again replaces it"
    assert list(objects.entries(key)) == []
    with pytest.raises(NotFoundError):
        objects.get(key)
    objects.finish_parts(key, 2)
    assert objects.get(key) == first + last
    assert objects.parts(key) == {}
    objects.finish_parts(key, 2)
    objects.put_part(key, 1, first)  # somebody who was late
    objects.finish_parts(key, 2)
    assert objects.get(key) == first + last, "what is finished stays as it is"


def test_uploads_of_keys_that_begin_alike_are_kept_apart(objects, kind):
    objects.put_part(f"parts/{kind}.json", 1, b"other")
    assert objects.parts(f"parts/{kind}") == {}
    objects.put_part(f"parts/{kind}", 1, b"mine")
    objects.finish_parts(f"parts/{kind}", 1)
    assert objects.get(f"parts/{kind}") == b"mine"
    assert objects.parts(f"parts/{kind}.json") == {1: 5}


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
