"""The queue of training jobs on SQS, and the queue of those that could not be handled."""

from __future__ import annotations

from shared.adapters.aws.session import AwsSession, translated
from shared.contracts import TrainingJob, encode
from shared.ports import DeadLetter


class SqsQueue:
    """JobQueue on SQS; the dead-letter queue keeps the reason as a message attribute."""

    def __init__(self, session: AwsSession, queue: str, dead_letter_queue: str) -> None:
        self._session = session
        self._queue = queue
        self._dead_letter_queue = dead_letter_queue
        self._urls: dict[str, str] = {}

    def _url(self, queue: str) -> str:
        if queue not in self._urls:
            self._urls[queue] = self._session.client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]
        return self._urls[queue]

    def enqueue(self, job: TrainingJob) -> None:
        """Send the job; a duplicate is harmless because its consumer claims by job_id."""
        with translated(f"SQS queue {self._queue}"):
            sqs, url = self._session.client("sqs"), self._url(self._queue)
            _ = sqs.send_message(QueueUrl=url, MessageBody=encode(job).decode())["MessageId"]

    def dead_letter(self, body: str, reason: str) -> None:
        """Keep the message with its reason."""
        # SQS refuses an empty body and most control characters; a message must not be lost for that.
        kept = "".join(c if c >= " " or c in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for c in body) or "(empty)"
        attribute = {"reason": {"DataType": "String", "StringValue": reason[:1024] or "unknown"}}
        with translated(f"SQS queue {self._dead_letter_queue}"):
            sqs, url = self._session.client("sqs"), self._url(self._dead_letter_queue)
            _ = sqs.send_message(QueueUrl=url, MessageBody=kept, MessageAttributes=attribute)["MessageId"]

    def depth(self) -> int:
        """About how many jobs wait."""
        with translated(f"SQS queue {self._queue}"):
            answer = self._session.client("sqs").get_queue_attributes(
                QueueUrl=self._url(self._queue), AttributeNames=["ApproximateNumberOfMessages"]
            )
            return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def dead_letters(self, hide_s: int = 60) -> list[DeadLetter]:
        """The messages kept, hidden for `hide_s`."""
        found: list[DeadLetter] = []
        with translated(f"SQS queue {self._dead_letter_queue}"):
            sqs, url = self._session.client("sqs"), self._url(self._dead_letter_queue)
            while messages := sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=hide_s, MessageAttributeNames=["reason"]
            ).get("Messages"):
                for message in messages:
                    attribute = message.get("MessageAttributes", {}).get("reason", {})
                    reason = attribute.get("StringValue", "delivered too often; the retrain function's log says why")
                    found.append(DeadLetter(message["Body"], reason, message["ReceiptHandle"]))
        return found

    def dead_letter_count(self) -> int:
        """About how many messages are kept, hidden ones among them."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            answer = self._session.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
            return sum(int(answer["Attributes"][name]) for name in names)

    def release(self, letter: DeadLetter) -> None:
        """Show a hidden message again."""
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            self._session.client("sqs").change_message_visibility(
                QueueUrl=url, ReceiptHandle=letter.receipt, VisibilityTimeout=0
            )

    def forget(self, letter: DeadLetter) -> None:
        """Remove a message that was kept."""
        with translated(f"SQS queue {self._dead_letter_queue}"):
            url = self._url(self._dead_letter_queue)
            self._session.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)
