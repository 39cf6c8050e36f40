"""What `make package` and `osls package` produce, made once for all tests of this folder (they share a worker)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local.runtimes import ROOT, clean_env

#: osls never contacts AWS when it packages; it only wants to see credentials
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}
#: what a deployment is made of, where its owner changed nothing
PARAMETERS = {"OPPORTUNE_PARAMETERS": "infra/aws/parameters.example.yml"}

TOKEN_AT = "/opportune/dev/operator-token"
#: a service that retrains whenever it may; moto knows no newer instances for endpoints
WANTED = ("mode=act", "policy=always", "serveInstance=ml.c5.xlarge", f"operatorToken=ssm:{TOKEN_AT}")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with aws/, aws.zip and azure/."""
    out = tmp_path_factory.mktemp("packages")
    done = subprocess.run(
        [sys.executable, "-m", "infra.package", "--out", str(out)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "matches nothing" not in done.stderr, "infra/trim.py names something that no longer exists"
    return out


def _osls(*arguments: str, env: dict[str, str] | None = None) -> str:
    """osls's output; fails with it when osls failed."""
    done = subprocess.run(
        [str(ROOT / ".tools/bin/osls"), *arguments],
        cwd=ROOT,
        env=clean_env({**CREDENTIALS, **PARAMETERS, "SLS_TELEMETRY_DISABLED": "1", **(env or {})}),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def osls() -> Callable[..., str]:
    """The Serverless command: arguments, env -> its output."""
    return _osls


@pytest.fixture(scope="session")
def deployment(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function: parameters of serverless.yml -> the folder with the generated CloudFormation and its state."""
    made: dict[tuple[str, ...], Path] = {}
    artifact = ROOT / "build" / "aws.zip"
    if not artifact.exists():  # osls packages what `make package` left; here it comes from the fixture
        artifact.parent.mkdir(exist_ok=True)
        os.link(packages / "aws.zip", artifact)

    def package(*parameters: str) -> Path:
        if parameters not in made:
            folder = tmp_path_factory.mktemp("osls")
            options = [text for parameter in parameters for text in ("--param", parameter)]
            _osls("package", "--package", str(folder), *options)
            made[parameters] = folder
        return made[parameters]

    return package


@pytest.fixture(scope="session")
def template(deployment: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """A function: parameters -> the generated CloudFormation template."""

    def read(*parameters: str) -> dict[str, Any]:
        text = (deployment(*parameters) / "cloudformation-template-update-stack.json").read_text()
        loaded: dict[str, Any] = json.loads(text)
        return loaded

    return read


class Deployed(NamedTuple):
    """A moto server with the stack in it, and each function's environment as deployed."""

    url: str
    client: Callable[[str], Any]
    environments: dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def deployed(deployment: Callable[..., Path], prometheus: str) -> Iterator[Deployed]:
    """AWS after `osls deploy`: a service that wants to retrain whenever it may."""
    import boto3  # noqa: TID251 - the test is a client of its own
    import moto.cloudformation.models as models
    from moto.server import ThreadedMotoServer
    from moto.sqs.models import sqs_backends

    # moto takes cfn-lint's warnings for errors; AWS knows no such warnings.
    found = models.validate_template_cfn_lint
    patch = pytest.MonkeyPatch()
    patch.setattr(
        models, "validate_template_cfn_lint", lambda template: [m for m in found(template) if m.rule.id.startswith("E")]
    )
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": CREDENTIALS["AWS_REGION"]}

    def client(service: str) -> Any:
        return boto3.client(service, endpoint_url=url, **keys)

    folder = deployment(*WANTED, f"prometheusUrl={prometheus}")
    _osls("deploy", "--package", str(folder), env={"AWS_ENDPOINT_URL": url})
    # The tests poll the queue: moto's own poller wants Docker, and hides the messages it could not deliver.
    for queue in sqs_backends["123456789012"][CREDENTIALS["AWS_REGION"]].queues.values():
        queue.lambda_event_source_mappings.clear()
    client("ssm").put_parameter(Name=TOKEN_AT, Value="0p3rator", Type="SecureString")
    functions = client("lambda").list_functions()["Functions"]
    environments = {
        f["FunctionName"].removeprefix("opportune-qa-dev-"): {
            **f["Environment"]["Variables"],
            **CREDENTIALS,
            "AWS_DEFAULT_REGION": CREDENTIALS["AWS_REGION"],
            "AWS_ENDPOINT_URL": url,
        }
        for f in functions
    }
    yield Deployed(url, client, environments)
    server.stop()
    patch.undo()


@pytest.fixture(scope="session")
def prometheus() -> Iterator[str]:
    """A Prometheus whose metrics are all 0.5: a healthy service of middling quality."""
    from benchmarks.functions.__main__ import constant_prometheus

    with constant_prometheus() as url:
        yield url
