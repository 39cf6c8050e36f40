"""What an embedded cloud is told to refuse: quotas, missing capacity, missing permissions.

    PUT /_local/faults {"CreateTrainingJob": {"code": "ResourceLimitExceeded", "message": "…", "times": 1}}

The body replaces all that was asked for before; `{}` ends it. `times` is how often, without it always. Names of
operations are AWS's own (`CreateEndpoint`, `SendMessage`, `s3:PutObject`), on Azure the method and the collection
(`PUT jobs`). `TrainingJob` is how a job ends that was taken: `CapacityError` or `MaxWaitTimeExceeded` before it ran,
`Interrupted` for a spot instance that is taken away while it runs; on Azure ML `OutOfCapacity`.
"""

from __future__ import annotations

import threading
from typing import Annotated, Final

import msgspec
from msgspec import Meta

#: where the embedded clouds take them
PATH: Final = "/_local/faults"
#: the fate of a training job that was taken
JOB: Final = "TrainingJob"


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How one operation is refused."""

    code: str
    message: str = "refused as asked for"
    status: Annotated[int, Meta(ge=400, le=599)] = 400
    times: Annotated[int, Meta(ge=1)] | None = None


class Faults:
    """Operation -> how it is refused. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Fault] = {}

    def replace(self, raw: bytes) -> None:
        """Take the body of a PUT. Raises ValueError."""
        asked = msgspec.json.decode(raw, type=dict[str, Fault])
        with self._lock:
            self._asked = asked

    def take(self, operation: str, *codes: str) -> Fault | None:
        """How this call of the operation is refused, if it is, and if by one of the codes."""
        with self._lock:
            fault = self._asked.get(operation)
            if fault is None or (codes and fault.code not in codes):
                return None
            if fault.times is not None:
                fault.times -= 1
                if not fault.times:
                    del self._asked[operation]
            return fault

    def told(self) -> bytes:
        """What is asked for, as JSON."""
        with self._lock:
            return msgspec.json.encode(self._asked)
