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

from infra.runtimes import ROOT, clean_env

#: osls never contacts AWS when it packages; it only wants to see credentials
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Packages are built once: everything here runs on one worker."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("packages"))


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
        env=clean_env({**CREDENTIALS, "SLS_TELEMETRY_DISABLED": "1", **(env or {})}),
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


class Aws(NamedTuple):
    """A moto server."""

    url: str
    client: Callable[[str], Any]


@pytest.fixture(scope="session")
def lenient_moto() -> Iterator[Aws]:
    """AWS that accepts a template with cfn-lint warnings, as the real one does; moto takes them for errors."""
    import boto3  # noqa: TID251 - the test is a client of its own
    import moto.cloudformation.models as models
    from moto.server import ThreadedMotoServer

    found = models.validate_template_cfn_lint
    patch = pytest.MonkeyPatch()
    patch.setattr(
        models, "validate_template_cfn_lint", lambda template: [m for m in found(template) if m.rule.id.startswith("E")]
    )
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"

    def client(service: str) -> Any:
        return boto3.client(
            service, endpoint_url=url, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
        )

    yield Aws(url, client)
    server.stop()
    patch.undo()
