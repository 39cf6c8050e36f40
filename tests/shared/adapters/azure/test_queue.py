"""The poison queue as the Functions host fills it."""

import msgspec
import pytest
from azure.storage.queue import QueueClient

from shared.adapters.azure.queue import StorageQueue

pytestmark = pytest.mark.xdist_group("clouds")


def test_what_the_host_moved_there_is_read_as_it_is(azurite, credential):
    settings = msgspec.structs.replace(azurite, poison_queue="host-poison")
    host = QueueClient.from_connection_string(azurite.azure_storage_connection, "host-poison")
    host.create_queue()
    for text in ("eyJhIjogMX0=", "not base64"):
        host.send_message(text)
    queue = StorageQueue(settings, credential)
    letters = queue.dead_letters()
    assert [letter.body for letter in letters] == ['{"a": 1}', "not base64"]
    assert {letter.reason for letter in letters} == {"delivered too often; the retrain function's log says why"}
    for letter in letters:
        queue.forget(letter)
    assert host.get_queue_properties().approximate_message_count == 0
