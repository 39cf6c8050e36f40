"""A SageMaker endpoint as its owner runs it: what it says of itself. What it serves is its containers' to say."""

from __future__ import annotations

from typing import Any, Final

from shared.adapters.answers import understood
from shared.adapters.aws.session import AwsSession, described
from shared.settings import Settings
from shared.values import HostState

_BUSY: Final = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
#: the states in which an endpoint answers, with the old machines where it is being changed
_SERVING: Final = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})


class SageMakerEndpoint:
    """The management side of one endpoint, whatever its variants are called."""

    def __init__(self, session: AwsSession, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._what = f"SageMaker endpoint {settings.sagemaker_endpoint}"

    def state(self) -> HostState:
        """Whether it can answer, and where it is asked; its version is not known here."""
        name = self._settings.sagemaker_endpoint
        url = self._settings.aws_endpoint_url or f"sagemaker:{name}"
        endpoint = described(self._what, lambda: self._session.client("sagemaker").describe_endpoint(EndpointName=name))
        if endpoint is None:
            return HostState(None, url, healthy=False, reason=f"{self._what} does not exist")
        with understood(self._what):
            return self._told(url, endpoint)

    def _told(self, url: str, endpoint: dict[str, Any]) -> HostState:
        status = endpoint["EndpointStatus"]
        variants = endpoint.get("ProductionVariants") or []
        # the largest share of the traffic counts; without weights (one variant, or just being made) there is one
        takes = max((variant.get("CurrentWeight", 1.0) for variant in variants), default=0.0) > 0.0
        why = endpoint.get("FailureReason") or ""
        if status not in _SERVING:
            why = f"{self._what} is {status}: {why or 'no reason given'}"
        elif not takes:
            why = f"no variant of {self._what} takes traffic"
        return HostState(None, url, healthy=status in _SERVING and takes, updating=status in _BUSY, reason=why)
