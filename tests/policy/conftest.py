"""Job records as a policy sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.contracts import JobRecord, JobStatus, TrainingJob


@pytest.fixture
def record(a_job: Callable[..., TrainingJob]) -> Callable[..., JobRecord]:
    """A function: status, when it was decided and last changed, cost; fields of the job -> its record."""

    def make(
        status: JobStatus, slot_s: float, updated_s: float, cost_usd: float | None = None, **job: str
    ) -> JobRecord:
        return JobRecord(job=a_job(slot_s=slot_s, **job), status=status, updated_s=updated_s, cost_usd=cost_usd)

    return make
