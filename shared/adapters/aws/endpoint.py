"""SageMaker endpoints behind the ports."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from shared.adapters.aws.session import AwsSession, creating, described
from shared.errors import ModelError
from shared.settings import Settings

_BUSY: Final = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
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
        cfg, name = self._settings, self._name(model_version)
        endpoint = self._describe()
        if endpoint is not None and (endpoint["EndpointConfigName"] == name or endpoint["EndpointStatus"] in _BUSY):
            return
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
        with creating(f"SageMaker endpoint {self._endpoint}"):
            call(EndpointName=self._endpoint, EndpointConfigName=name)

    def _describe(self) -> dict[str, Any] | None:
        return described(
            f"SageMaker endpoint {self._endpoint}",
            lambda: self._session.client("sagemaker").describe_endpoint(EndpointName=self._endpoint),
        )

    def serving_version(self) -> str | None:
        """The variant that takes traffic; during an update SageMaker still reports the old one."""
        endpoint = self._describe()
        if endpoint is None or endpoint["EndpointStatus"] == "Creating":
            return None
        if endpoint["EndpointStatus"] == "Failed":
            raise ModelError(
                f"SageMaker endpoint {self._endpoint} failed: {endpoint.get('FailureReason', 'no reason given')}"
            )
        return str(endpoint["ProductionVariants"][0]["VariantName"])

    def endpoint_url(self) -> str:
        """The HTTP face in front of the endpoint, or its name for the SageMaker runtime."""
        return self._settings.aws_endpoint_url or f"sagemaker:{self._endpoint}"
