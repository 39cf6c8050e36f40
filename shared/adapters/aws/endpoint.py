"""SageMaker endpoints behind the ports."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from shared.adapters.answers import understood
from shared.adapters.aws.session import AwsSession, creating, described
from shared.errors import RefusedError, UnavailableError
from shared.settings import Settings
from shared.values import HostState

_BUSY: Final = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
#: the states in which an endpoint answers, with the old version where it is being changed
_SERVING: Final = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})
_NAME_LIMIT: Final = 63


class SageMakerHost:
    """ModelHost on one SageMaker endpoint; the production variant's name is the model version."""

    def __init__(self, session: AwsSession, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._endpoint = settings.sagemaker_endpoint

    def _name(self, model_version: str) -> str:
        name = f"{self._endpoint}-{model_version}"
        if len(name) <= _NAME_LIMIT:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return f"{name[: _NAME_LIMIT - 13].rstrip('-')}-{digest}"

    def deploy(self, model_version: str, artifact_uri: str) -> None:
        """Create model and configuration, then create or update the endpoint (SageMaker swaps blue/green)."""
        what = f"SageMaker endpoint {self._endpoint}"
        with understood(what):
            self._deploy(what, model_version, artifact_uri)

    def _deploy(self, what: str, model_version: str, artifact_uri: str) -> None:
        cfg, name = self._settings, self._name(model_version)
        endpoint = self._describe()
        if endpoint is not None and (endpoint["EndpointConfigName"] == name or endpoint["EndpointStatus"] in _BUSY):
            return
        if endpoint is not None and endpoint["EndpointStatus"] not in _SERVING:
            why = f"it is {endpoint['EndpointStatus']}: {endpoint.get('FailureReason', 'no reason given')}"
            raise RefusedError(what, f"{why}; delete it, and it is made again")
        sagemaker = self._session.client("sagemaker")
        with creating(f"SageMaker model {name}"):
            sagemaker.create_model(
                ModelName=name,
                PrimaryContainer={"Image": cfg.sagemaker_image, "ModelDataUrl": artifact_uri},
                ExecutionRoleArn=cfg.sagemaker_role_arn,
            )
        variant = {
            "VariantName": model_version,
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": cfg.sagemaker_serve_instance_type,
        }
        with creating(f"SageMaker endpoint configuration {name}"):
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        call = sagemaker.create_endpoint if endpoint is None else sagemaker.update_endpoint
        try:
            with creating(what):
                _ = call(EndpointName=self._endpoint, EndpointConfigName=name)["EndpointArn"]
        except RefusedError as exc:
            if "in-progress" in str(exc):  # another change began after it was looked at: this one's turn comes
                raise UnavailableError(what, str(exc)) from exc
            raise

    def _describe(self) -> dict[str, Any] | None:
        return described(
            f"SageMaker endpoint {self._endpoint}",
            lambda: self._session.client("sagemaker").describe_endpoint(EndpointName=self._endpoint),
        )

    def state(self) -> HostState:
        """The variant with the largest share of the traffic; during an update SageMaker still reports the old ones."""
        url = self._settings.aws_endpoint_url or f"sagemaker:{self._endpoint}"
        endpoint = self._describe()
        if endpoint is None:
            return HostState(None, url)
        with understood(f"SageMaker endpoint {self._endpoint}"):
            return self._told(url, endpoint)

    def _told(self, url: str, endpoint: dict[str, Any]) -> HostState:
        status = endpoint["EndpointStatus"]
        variants = endpoint.get("ProductionVariants") or []
        # without weights (one variant, or an endpoint that is just being made) the first one is the largest
        largest = max(variants, key=lambda variant: variant.get("CurrentWeight", 0.0), default=None)
        takes = largest is not None and largest.get("CurrentWeight", 1.0) > 0.0
        version = str(largest["VariantName"]) if largest and takes and status != "Creating" else None
        why = endpoint.get("FailureReason") or ""
        if status not in _SERVING:
            why = f"SageMaker endpoint {self._endpoint} is {status}: {why or 'no reason given'}"
        elif not takes:
            why = f"no variant of SageMaker endpoint {self._endpoint} takes traffic"
        return HostState(
            version,
            url,
            healthy=status in _SERVING and takes,
            updating=status in _BUSY,
            reason=why,
        )
