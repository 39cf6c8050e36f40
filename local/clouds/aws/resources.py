"""Bucket, table, queues and rule in the embedded AWS, as serverless.yml makes them; safe to repeat."""

from __future__ import annotations

import json
from typing import Any, Final

from botocore.exceptions import ClientError  # noqa: TID251

from local.clouds.aws.sdk import ACCOUNT, REGION, client
from shared.settings import Settings

#: the queue between EventBridge and the completion handler; it exists in the embedded cloud only
EVENTS_QUEUE: Final = "opportune-local-events"
MAX_RECEIVE_COUNT: Final = 5
TRAINING_ENDED: Final = {
    "source": ["aws.sagemaker"],
    "detail-type": ["SageMaker Training Job State Change"],
    "detail": {"TrainingJobStatus": ["Completed", "Failed", "Stopped"]},
}


def make_resources(url: str, settings: Settings, visibility_s: int) -> None:
    """Bucket, table, queues with redrive, and the rule for the end of training jobs."""
    client("s3", url).create_bucket(Bucket=settings.bucket)
    _make_table(client("dynamodb", url), settings.table)
    sqs = client("sqs", url)
    _make_queue(sqs, settings.queue, settings.dead_letter_queue, visibility_s)
    _make_queue(sqs, EVENTS_QUEUE, f"{EVENTS_QUEUE}-dlq", visibility_s)
    events = client("events", url)
    events.put_rule(Name="opportune-training-ended", EventPattern=json.dumps(TRAINING_ENDED))
    target = {"Id": "training-events", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{EVENTS_QUEUE}"}
    events.put_targets(Rule="opportune-training-ended", Targets=[target])


def _make_queue(sqs: Any, name: str, dead_letters: str, visibility_s: int) -> None:
    sqs.create_queue(QueueName=dead_letters)
    redrive = {
        "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{dead_letters}",
        "maxReceiveCount": str(MAX_RECEIVE_COUNT),
    }
    attributes = {"VisibilityTimeout": str(visibility_s), "RedrivePolicy": json.dumps(redrive)}
    sqs.create_queue(QueueName=name, Attributes=attributes)


def _make_table(dynamodb: Any, name: str) -> None:
    try:
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "key", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "kind", "AttributeType": "S"},
                {"AttributeName": "key", "AttributeType": "S"},
            ],
        )
    except ClientError as exc:
        if exc.response["Error"]["Code"] != "ResourceInUseException":
            raise
    dynamodb.update_time_to_live(
        TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_s"}
    )
