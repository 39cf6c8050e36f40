"""A function app in Azure as a client of AWS: its Entra token becomes temporary AWS credentials."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytestmark = pytest.mark.xdist_group("clouds")
USE = """
from functions.bootstrap import aws_session
from shared.adapters.aws.documents import DynamoDocuments
from shared.adapters.aws.queue import SqsQueue
documents = DynamoDocuments(aws_session(), "opportune", 1.0)
documents.put("federated", "k", b"v")
SqsQueue(aws_session(), "opportune-retrain", "opportune-retrain-dlq").depth()
proven = aws_session().sign("POST", "https://x/", b"", {}, service="aps")
print(documents.get("federated", "k").body.decode(), "X-Amz-Security-Token" in proven, proven["Authorization"])
"""


@pytest.fixture
def in_azure(moto):
    """The environment of a function app that may take an AWS role on; without an identity yet."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return env | {
        "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/opportune-qa-dev-azure-peer",
        "AWS_ROLE_AUDIENCE": "api://opportune-qa",
        "IDENTITY_HEADER": "x",
        # what a person left there does not count: the role does
        "AWS_ACCESS_KEY_ID": "AKIDPERSON",
        "AWS_SECRET_ACCESS_KEY": "x",
    }


def run(program, env):
    root = Path(__file__).parents[4]
    return subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=root, capture_output=True, text=True, timeout=60
    )


def test_the_managed_identity_takes_the_role_on_without_a_stored_key(in_azure, http_server):
    asked = []

    def identity(request):
        asked.append(parse_qs(urlsplit(request.path).query)["resource"][0])
        return 200, json.dumps({"access_token": "entra-token", "expires_on": str(int(time.time()) + 7200)}).encode()

    with http_server(identity) as url:
        done = run(USE, in_azure | {"IDENTITY_ENDPOINT": f"{url}/msi"})
    value, has_token, authorization = done.stdout.split(maxsplit=2)
    assert (value, has_token) == ("v", "True"), done.stderr
    assert "Credential=ASIA" in authorization, "a temporary key of AWS STS"
    assert asked == ["api://opportune-qa"], "one exchange serves every client and signature"


def test_an_identity_that_refuses_is_an_unavailable_aws_with_entras_reason(in_azure, http_server):
    told = json.dumps({"statusCode": 400, "message": "AADSTS700016: no such application"}).encode()
    program = (
        "from functions.bootstrap import aws_session\n"
        "from shared.adapters.aws.documents import DynamoDocuments\n"
        "from shared.errors import UnavailableError\n"
        "try:\n"
        "    DynamoDocuments(aws_session(), 'opportune', 1.0).get('job', 'x')\n"
        "except UnavailableError as exc:\n"
        "    print(exc)\n"
    )
    with http_server(lambda _: (400, told)) as url:
        done = run(program, in_azure | {"IDENTITY_ENDPOINT": f"{url}/msi"})
    assert "AADSTS700016" in done.stdout, done.stderr


def test_outside_azure_the_sdks_own_chain_is_used(in_azure):
    program = USE.replace('"X-Amz-Security-Token" in proven', "''")
    done = run(program, in_azure)
    assert "Credential=AKIDPERSON/" in done.stdout, done.stderr
