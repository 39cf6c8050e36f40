import time

import pytest

from local.clouds.azure.storage import connection_string
from shared.adapters.azure import BlobObjects, StorageQueue, TableDocuments
from shared.errors import UnavailableError
from shared.settings import Settings


@pytest.mark.parametrize(
    "call",
    [
        lambda cfg: TableDocuments(cfg).get("job", "x"),
        lambda cfg: BlobObjects(cfg).get("x"),
        lambda cfg: StorageQueue(cfg).dead_letter("x", "y"),
    ],
)
def test_a_cloud_that_does_not_answer_is_unavailable_within_seconds(call):
    settings = Settings(azure_storage_connection=connection_string(9, 9, 9))
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        call(settings)
    assert time.monotonic() - begun < 8
