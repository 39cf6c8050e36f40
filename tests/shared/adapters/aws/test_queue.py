"""What SQS does beyond the port; the rest is in test_contract."""

import pytest

from shared.adapters.aws.queue import SqsQueue
from shared.adapters.aws.session import AwsSession
from shared.errors import NotFoundError

pytestmark = pytest.mark.xdist_group("clouds")


def test_a_missing_queue_is_named(moto):
    queue = SqsQueue(AwsSession(), "lost-queue", "lost-dlq")
    with pytest.raises(NotFoundError, match="lost-dlq"):
        queue.dead_letter("x", "y")
    with pytest.raises(NotFoundError, match="lost-queue"):
        queue.depth()


def test_a_queues_address_is_looked_up_once(moto):
    session, asked = AwsSession(), []
    session.client("sqs").meta.events.register("before-call.sqs", lambda model, **_: asked.append(model.name))
    queue = SqsQueue(session, "opportune-retrain", "opportune-retrain-dlq")
    queue.depth()
    queue.depth()
    assert asked == ["GetQueueUrl", "GetQueueAttributes", "GetQueueAttributes"]
