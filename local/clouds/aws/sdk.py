"""boto3 clients of the embedded AWS for its own parts: pollers, training, endpoints, and what plays the deployment."""

from __future__ import annotations

import functools
import os
from typing import Any, Final

import boto3  # noqa: TID251 - the cloud itself, not a use case

REGION: Final = "us-east-1"
ACCOUNT: Final = "123456789012"


@functools.cache
def client(service: str, url: str | None = None) -> Any:
    """One client per service and address; AWS_ENDPOINT_URL when none is named. Keys may be anything to moto."""
    # A session each: boto3's shared one is not made for threads.
    return boto3.session.Session().client(
        service,
        endpoint_url=url or os.environ["AWS_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
