"""References in the environment against moto's Parameter Store."""

import boto3  # noqa: TID251 - plays the person who stored the secret
import pytest

from functions.aws.secrets import resolved
from shared.errors import ConfigurationError

pytestmark = pytest.mark.xdist_group("clouds")


def test_a_reference_becomes_the_stored_value(moto):
    boto3.client("ssm").put_parameter(Name="/opportune/test/token", Value="s3cret", Type="SecureString")
    env = {"OPPORTUNE_PROMETHEUS_TOKEN": "ssm:/opportune/test/token", "OPPORTUNE_SERVICE": "qa", "OTHER": "ssm:/x"}
    assert resolved(env) == {**env, "OPPORTUNE_PROMETHEUS_TOKEN": "s3cret"}


def test_a_missing_parameter_names_the_variable(moto):
    with pytest.raises(ConfigurationError, match=r"OPPORTUNE_OPERATOR_TOKEN is 'ssm:/nowhere'.*secretPath"):
        resolved({"OPPORTUNE_OPERATOR_TOKEN": "ssm:/nowhere"})
