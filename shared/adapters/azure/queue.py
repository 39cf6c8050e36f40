"""JobQueue on Storage Queue."""

from __future__ import annotations

import base64
import functools
import json
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.azure.account import once_more, storage_client
from shared.adapters.azure.errors import answered
from shared.contracts import TrainingJob, encode
from shared.ports import DeadLetter
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

#: the most messages that the service hands out at once
_PAGE: Final = 32


class StorageQueue:
    """JobQueue on Storage Queue, base64 as the Functions host expects; the poison queue keeps body and reason."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._settings, self._credential = settings, credential

    @functools.cached_property
    def _jobs(self) -> Any:
        return self._client(self._settings.queue)

    @functools.cached_property
    def _poison(self) -> Any:
        return self._client(self._settings.poison_queue)

    def _client(self, name: str) -> Any:
        import azure.storage.queue as sdk

        # Not decoded by the client: what the host moved to the poison queue need not be base64.
        ours = {"message_encode_policy": sdk.TextBase64EncodePolicy(), "retry_policy": once_more(sdk.LinearRetry)}
        return storage_client(sdk.QueueClient, "queue", name, self._settings, self._credential, **ours)

    def enqueue(self, job: TrainingJob) -> None:
        """Send the job; a duplicate is harmless because its consumer claims by job_id."""
        with answered(f"Azure queue {self._settings.queue}"):
            self._jobs.send_message(encode(job).decode())

    def dead_letter(self, body: str, reason: str) -> None:
        """Storage Queue messages carry no attributes, so the poison message is {"body", "reason"}."""
        with answered(f"Azure queue {self._settings.poison_queue}"):
            self._poison.send_message(json.dumps({"body": body[:32768], "reason": reason[:1024]}))

    def depth(self) -> int:
        """About how many jobs wait."""
        with answered(f"Azure queue {self._settings.queue}"):
            return int(self._jobs.get_queue_properties().approximate_message_count)

    def dead_letters(self, hide_s: int = 60) -> list[DeadLetter]:
        """The messages kept, hidden for `hide_s`: ours with their reason, the Functions host's without."""
        with answered(f"Azure queue {self._settings.poison_queue}"):
            messages = list(self._poison.receive_messages(messages_per_page=_PAGE, visibility_timeout=hide_s))
            return [DeadLetter(*_poisoned(m.content), f"{m.id} {m.pop_receipt}") for m in messages]

    def dead_letter_count(self) -> int:
        """About how many messages are kept, hidden ones among them."""
        with answered(f"Azure queue {self._settings.poison_queue}"):
            return int(self._poison.get_queue_properties().approximate_message_count)

    def release(self, letter: DeadLetter) -> None:
        """Show a hidden message again."""
        message_id, _, receipt = letter.receipt.partition(" ")
        with answered(f"Azure queue {self._settings.poison_queue}"):
            self._poison.update_message(message_id, receipt, visibility_timeout=0)

    def forget(self, letter: DeadLetter) -> None:
        """Remove a message that was kept."""
        message_id, _, receipt = letter.receipt.partition(" ")
        with answered(f"Azure queue {self._settings.poison_queue}"):
            self._poison.delete_message(message_id, receipt)


def _poisoned(text: str) -> tuple[str, str]:
    """(body, reason) of a poison message: ours, or the original as the Functions host moved it there."""
    try:
        body = base64.b64decode(text, validate=True).decode()
    except ValueError:
        body = text
    try:
        kept = json.loads(body)
    except ValueError:
        kept = None
    if isinstance(kept, dict) and kept.keys() == {"body", "reason"}:
        return str(kept["body"]), str(kept["reason"])
    return body, "delivered too often; the retrain function's log says why"
