"""What `doctor` looks at in an AWS account, against moto; what is missing says what to do."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from shared.adapters.aws.account_checks import AwsAccount
from shared.adapters.aws.session import AwsSession
from shared.errors import NotFoundError
from shared.settings import Settings

pytestmark = pytest.mark.xdist_group("clouds")

TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/opportune-acc-dev"
SETTINGS = Settings(
    service="acc", sagemaker_image=f"{IMAGE}:3", sagemaker_role_arn="arn:aws:iam::123456789012:role/acc-training"
)


def account(**changes: Any) -> AwsAccount:
    return AwsAccount(AwsSession(), msgspec.structs.replace(SETTINGS, **changes))


def test_an_image_that_is_not_there_says_who_builds_it(moto: None) -> None:
    with pytest.raises(NotFoundError, match=r"RepositoryNotFound.*`opportune deploy aws` builds and pushes it"):
        account().image()
    AwsSession().client("ecr").create_repository(repositoryName="opportune-acc-dev")
    with pytest.raises(NotFoundError, match="ImageNotFound"):
        account().image()
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    config = {"digest": "sha256:" + "0" * 64, "size": 1, "mediaType": kind}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []})
    AwsSession().client("ecr").put_image(repositoryName="opportune-acc-dev", imageManifest=manifest, imageTag="3")
    assert account().image() == f"{IMAGE}:3 is there"
    with pytest.raises(NotFoundError, match="is 'opportune-training:latest', which is not in ECR"):
        account(sagemaker_image="opportune-training:latest").image()


def test_a_role_must_be_there_and_be_sagemakers_to_take(moto: None) -> None:
    with pytest.raises(NotFoundError, match="set OPPORTUNE_SAGEMAKER_ROLE_ARN"):
        account().roles()
    iam = AwsSession().client("iam")
    for name, service in (("acc-training", "sagemaker.amazonaws.com"), ("acc-serving", "lambda.amazonaws.com")):
        trust = {**TRUST, "Statement": [{**TRUST["Statement"][0], "Principal": {"Service": service}}]}  # type: ignore[dict-item]
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    assert "can be handed to SageMaker" in account().roles()
    with pytest.raises(NotFoundError, match="acc-serving does not trust sagemaker"):
        account(sagemaker_serve_role_arn="arn:aws:iam::123456789012:role/acc-serving").roles()


def test_alarms_that_reach_nobody_fail_until_somebody_confirms(moto: None) -> None:
    with pytest.raises(NotFoundError, match="no alarm begins with opportune-acc-"):
        account().alarms()
    session = AwsSession()
    topic = session.client("sns").create_topic(Name="opportune-acc-dev-alarms")["TopicArn"]
    session.client("cloudwatch").put_metric_alarm(
        AlarmName="opportune-acc-dev-tick", AlarmActions=[topic], MetricName="m", Namespace="n", Period=60,
        EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
    )  # fmt: skip
    with pytest.raises(NotFoundError, match="1 alarms reach nobody; give alarmEmail"):
        account().alarms()
    session.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="a@b.c")
    assert account().alarms() == "1 alarms reach 1 subscriber"


class Client:
    """Answers of services whose states moto does not have."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def get_paginator(self, name: str) -> Any:
        pages = self._answers[name]
        return type("Paginator", (), {"paginate": lambda self, **_: pages})()

    def list_subscriptions_by_topic(self, **_: Any) -> Any:
        return self._answers["subscriptions"]


def of(answers: dict[str, Any]) -> AwsAccount:
    session: Any = type("Session", (), {"client": lambda self, _: Client(answers)})()
    return AwsAccount(session, SETTINGS)


def test_a_subscription_that_waits_for_its_link_is_named() -> None:
    alarms = [{"MetricAlarms": [{"AlarmName": "a", "AlarmActions": ["arn:aws:sns:x:1:t"]}]}]
    pending = {"Subscriptions": [{"SubscriptionArn": "PendingConfirmation"}]}
    with pytest.raises(NotFoundError, match="follow the link in AWS's mail"):
        of({"describe_alarms": alarms, "subscriptions": pending}).alarms()


def test_a_quota_of_none_fails_with_the_request_to_make() -> None:
    def quotas(training: float) -> dict[str, Any]:
        named = {"ml.g4dn.xlarge for spot training job usage": training, "ml.c6i.xlarge for endpoint usage": 4.0}
        listed = [{"QuotaName": name, "QuotaCode": "L-1", "Value": value} for name, value in named.items()]
        return {"list_service_quotas": [{"Quotas": listed}]}

    assert "ml.c6i.xlarge for endpoint usage: 4" in of(quotas(1.0)).quotas()
    with pytest.raises(NotFoundError, match="--quota-code L-1 --desired-value 1"):
        of(quotas(0.0)).quotas()
