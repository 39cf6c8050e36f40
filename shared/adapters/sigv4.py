"""AWS requests signed with this process's identity (Signature Version 4), sent by another client than boto3's.

boto3 fixes its time-outs when a client is made; a request with its own deadline, or through a library of its own
(Prometheus), is signed here. botocore is imported at the first signature.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from shared.adapters.aws import session
from shared.errors import UnavailableError


def signed(
    method: str, url: str, body: bytes, headers: Mapping[str, str], *, service: str, region: str = ""
) -> dict[str, str]:
    """`headers` with the proof of who asks. The query of `url` must be percent-encoded, spaces as %20.

    Raises:
        UnavailableError: no credentials or no region can be found here, with what to do.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import BotoCoreError

    region = region or os.environ.get("AWS_REGION", "") or os.environ.get("AWS_DEFAULT_REGION", "")
    if not region:
        raise UnavailableError(f"AWS {service}", "the region is unknown; set AWS_REGION")
    try:
        credentials = session().get_credentials()
        if credentials is None:
            raise UnavailableError(f"AWS {service}", "no credentials here; give the function a role, or log in to AWS")
        request = AWSRequest(method, url, dict(headers), data=body)
        SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
    except BotoCoreError as exc:
        raise UnavailableError(f"AWS {service}", str(exc)) from exc
    return dict(request.headers.items())
