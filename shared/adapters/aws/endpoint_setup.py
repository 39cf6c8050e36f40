"""Making a SageMaker endpoint: model, configuration and endpoint, once; what serves on it is the release's business."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from shared.adapters.answers import understood
from shared.adapters.aws.session import AwsSession, creating, described
from shared.containers import lacking, serving_environment
from shared.settings import Settings
from shared.values import Standing

#: the variant's name does not change with the model: guardrails and scaling policies are tied to it
VARIANT: Final = "AllTraffic"
_READY: Final = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})
_FAILED: Final = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})
#: a container that fetches its first version has until then to answer its health check
_STARTUP_S: Final = 900
_NAME_LIMIT: Final = 63


class SageMakerSetup:
    """One endpoint: is it there, and making it."""

    def __init__(self, session: AwsSession, settings: Settings) -> None:
        self._session, self._settings = session, settings
        self._endpoint = settings.sagemaker_endpoint

    @property
    def name(self) -> str:
        """What it is called."""
        return f"SageMaker endpoint {self._endpoint}"

    def standing(self) -> Standing:
        """The endpoint now, whatever its variant is called and whoever made it."""
        sagemaker = self._session.client("sagemaker")
        found = described(self.name, lambda: sagemaker.describe_endpoint(EndpointName=self._endpoint))
        if found is None:
            return Standing("")
        with understood(self.name):
            state = str(found["EndpointStatus"])
            reason = str(found.get("FailureReason") or "")
            if state in _FAILED:
                reason = f"{reason or 'no reason given'}; mend it, then: {self._delete()}, and repeat"
            elif state not in _READY:
                reason = "SageMaker starts an instance and pulls the image; usually 5 to 10 minutes"
            lacks = "" if state in _FAILED else self._lacks(str(found["EndpointConfigName"]))
            return Standing(state, ready=state in _READY, failed=state in _FAILED, reason=reason, lacks=lacks)

    def _delete(self) -> str:
        return f"aws sagemaker delete-endpoint --endpoint-name {self._endpoint}"

    def _lacks(self, config: str) -> str:
        """What the container of the endpoint's first model was not told; "" too where that cannot be seen."""
        sagemaker = self._session.client("sagemaker")
        held = described(config, lambda: sagemaker.describe_endpoint_config(EndpointConfigName=config))
        variants = (held or {}).get("ProductionVariants") or []
        model = next((str(one["ModelName"]) for one in variants if one.get("ModelName")), "")
        found = described(model, lambda: sagemaker.describe_model(ModelName=model)) if model else None
        if found is None:
            return ""
        container: dict[str, Any] = found.get("PrimaryContainer") or next(iter(found.get("Containers") or []), {})
        return lacking(dict(container.get("Environment") or {}), self._settings, "aws")

    def create(self) -> None:
        """Make what is missing; a repeated call finds what an earlier one made.

        Raises:
            RefusedError, CapacityError, UnavailableError: in SageMaker's own words.
        """
        cfg = self._settings
        container = {"Image": cfg.sagemaker_image, "Environment": serving_environment(cfg, "aws")}
        role = cfg.sagemaker_serve_role_arn or cfg.sagemaker_role_arn
        variant: dict[str, Any] = {
            "VariantName": VARIANT,
            "InitialInstanceCount": 1,
            "InstanceType": cfg.sagemaker_serve_instance_type,
            "ContainerStartupHealthCheckTimeoutInSeconds": _STARTUP_S,
        }
        # Model and configuration cannot be changed: another content is another name.
        name = self._named([container, role, variant])
        tags = [{"Key": "opportune-service", "Value": cfg.service}]
        sagemaker = self._session.client("sagemaker")
        with creating(f"SageMaker model {name}"):
            sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, Tags=tags)
        with creating(f"SageMaker endpoint configuration {name}"):
            sagemaker.create_endpoint_config(
                EndpointConfigName=name, ProductionVariants=[{**variant, "ModelName": name}], Tags=tags
            )
        with creating(self.name):
            _ = sagemaker.create_endpoint(EndpointName=self._endpoint, EndpointConfigName=name, Tags=tags)[
                "EndpointArn"
            ]

    def _named(self, content: Any) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self._endpoint[: _NAME_LIMIT - 11].rstrip('-')}-{digest}"
