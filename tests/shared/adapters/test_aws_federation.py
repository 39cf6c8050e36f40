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
from shared.adapters.aws import session
from shared.adapters.dynamodb import DynamoDocuments
documents = DynamoDocuments("opportune", 1.0)
documents.put("federated", "k", b"v")
print(documents.get("federated", "k").body.decode(), session().get_credentials().method)
"""


def test_the_managed_identity_takes_the_role_on_without_a_stored_key(moto, http_server):
    asked = []

    def identity(request):
        asked.append(parse_qs(urlsplit(request.path).query)["resource"][0])
        return 200, json.dumps({"access_token": "entra-token", "expires_on": str(int(time.time()) + 7200)}).encode()

    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {
        "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/opportune-qa-dev-azure-peer",
        "AWS_ROLE_AUDIENCE": "api://opportune-qa",
        "IDENTITY_HEADER": "x",
    }
    root = Path(__file__).parents[3]
    with http_server(identity) as url:
        env["IDENTITY_ENDPOINT"] = f"{url}/msi"
        done = subprocess.run(
            [sys.executable, "-c", USE], env=env, cwd=root, capture_output=True, text=True, timeout=60
        )
    assert done.stdout.split() == ["v", "assume-role-with-web-identity"], done.stderr
    assert asked == ["api://opportune-qa"]
