"""What of an AWS account a deployment needs and no port asks for: image, role, quotas, alarms. Reads only.

Each returns words, or raises what is wrong and what to do.
"""

from __future__ import annotations

import re
from typing import Any, Final

from shared.adapters.aws.session import AwsSession, translated
from shared.errors import NotFoundError, RefusedError
from shared.settings import Settings

_ECR: Final = re.compile(r"(\d{12})\.dkr\.ecr\.([\w-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?:[:@](.+))?")
_CONFIRMED: Final = "arn:"


class AwsAccount:
    """The account that the settings name."""

    def __init__(self, session: AwsSession, settings: Settings) -> None:
        self._session, self._settings = session, settings

    def image(self) -> str:
        """The image that training and serving pull."""
        name = self._settings.sagemaker_image
        found = _ECR.fullmatch(name)
        if found is None:
            raise NotFoundError(
                f"OPPORTUNE_SAGEMAKER_IMAGE is {name!r}, which is not in ECR; SageMaker pulls from there "
                "alone; `opportune deploy aws` builds and pushes it, and says its name"
            )
        tag = found[4] or "latest"
        which = {"imageDigest": tag} if tag.startswith("sha256:") else {"imageTag": tag}
        try:
            with translated(f"image {name}"):
                self._session.client("ecr").describe_images(
                    registryId=found[1], repositoryName=found[3], imageIds=[which]
                )
        except RefusedError as exc:
            if "NotFoundException" not in str(exc):
                raise
            raise NotFoundError(f"{exc}; `opportune deploy aws` builds and pushes it") from exc
        return f"{name} is there"

    def roles(self) -> str:
        """The roles that are handed to SageMaker, and whether it may take them on."""
        cfg = self._settings
        arns = dict.fromkeys((cfg.sagemaker_role_arn, cfg.sagemaker_serve_role_arn or cfg.sagemaker_role_arn))
        for arn in arns:
            name = arn.rpartition("/")[2]
            try:
                with translated(f"role {arn}"):
                    role = self._session.client("iam").get_role(RoleName=name)["Role"]
            except RefusedError as exc:
                if "NoSuchEntity" not in str(exc):
                    raise
                raise NotFoundError(
                    f"{exc}; set OPPORTUNE_SAGEMAKER_ROLE_ARN to the deployment's output SageMakerRoleArn"
                ) from exc
            if role["Arn"] != arn:
                raise NotFoundError(f"role {arn} does not exist here; there is {role['Arn']}")
            if "sagemaker.amazonaws.com" not in str(role["AssumeRolePolicyDocument"]):
                raise NotFoundError(f"role {arn} does not trust sagemaker.amazonaws.com")
        return f"{', '.join(arns)} can be handed to SageMaker"

    def quotas(self) -> str:
        """Whether the account may have the machines at all: new accounts may have no GPU."""
        cfg = self._settings
        spot = "spot " if cfg.sagemaker_spot else ""
        wanted = {
            f"{cfg.sagemaker_instance_type} for {spot}training job usage": "training",
            f"{cfg.sagemaker_serve_instance_type} for endpoint usage": "the endpoint",
        }
        found: dict[str, Any] = {}
        with translated("Service Quotas of SageMaker"):
            pages = self._session.client("service-quotas").get_paginator("list_service_quotas")
            for page in pages.paginate(ServiceCode="sagemaker"):
                found |= {one["QuotaName"]: one for one in page["Quotas"] if one["QuotaName"] in wanted}
        for name in wanted:
            if name in found and found[name]["Value"] < 1:
                code = found[name]["QuotaCode"]
                raise NotFoundError(
                    f"the quota {name!r} is {found[name]['Value']:g}; ask for more: aws service-quotas "
                    f"request-service-quota-increase --service-code sagemaker --quota-code {code} --desired-value 1"
                )
        return "; ".join(
            f"{name}: {found[name]['Value']:g}" if name in found else f"{name}: not told" for name in wanted
        )

    def alarms(self) -> str:
        """Whether an alarm would reach somebody."""
        prefix = f"opportune-{self._settings.service}-"
        topics: set[str] = set()
        names: list[str] = []
        with translated("CloudWatch alarms"):
            pages = self._session.client("cloudwatch").get_paginator("describe_alarms")
            for page in pages.paginate(AlarmNamePrefix=prefix):
                for alarm in page.get("MetricAlarms", []):
                    names.append(str(alarm["AlarmName"]))
                    topics |= {action for action in alarm.get("AlarmActions", []) if ":sns:" in action}
        if not names:
            raise NotFoundError(f"no alarm begins with {prefix}; `opportune deploy aws` makes them")
        told = pending = 0
        for topic in topics:
            with translated(f"topic {topic}"):
                listed = self._session.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
            told += sum(one["SubscriptionArn"].startswith(_CONFIRMED) for one in listed)
            pending += sum(not one["SubscriptionArn"].startswith(_CONFIRMED) for one in listed)
        if not told:
            what = (
                "somebody has to follow the link in AWS's mail (subscription pending)"
                if pending
                else "give alarmEmail to `opportune deploy aws`"
            )
            raise NotFoundError(f"{len(names)} alarms reach nobody; {what}")
        return f"{len(names)} alarms reach {told} subscriber{'s' * (told > 1)}"
